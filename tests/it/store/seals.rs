//! Everything goes through the sealer: no byte of a record, a picture or a client's key is found.

use super::{ANN, BOB, Fixture, at, files, holds, id, put, says};
use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::{ObjectId, OwnerId},
    store::{
        BlobMode, Change, Claim, Class, Entry, Kind, Plain, RealDisk, SealError, Sealer, State,
        Store,
    },
};
use std::sync::Arc;

/// A stream of bytes from all that a seal is bound to, and a check. No cipher: a test's stand-in.
#[derive(Debug)]
pub(super) struct Masked(pub(super) u64);

impl Masked {
    fn mix(&self, owner: OwnerId, object: ObjectId, kind: Kind) -> u64 {
        let bound = [&owner.as_bytes()[..], object.as_bytes(), &[kind as u8]].concat();
        bound.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3).rotate_left(23)
        })
    }

    fn apply(seed: u64, bytes: &[u8]) -> Vec<u8> {
        super::noise(seed, bytes.len()).iter().zip(bytes).map(|(mask, byte)| mask ^ byte).collect()
    }

    fn check(seed: u64, bytes: &[u8]) -> [u8; 8] {
        let sum = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        bytes.iter().fold(!seed, sum).to_be_bytes()
    }
}

impl Sealer for Masked {
    fn name(&self) -> &'static str {
        "masked (tests)"
    }

    fn seal(
        &self,
        owner: OwnerId,
        object: ObjectId,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let seed = self.mix(owner, object, kind);
        Ok([&Self::check(seed, bytes)[..], &Self::apply(seed, bytes)].concat())
    }

    fn open(
        &self,
        owner: OwnerId,
        object: ObjectId,
        kind: Kind,
        sealed: Vec<u8>,
    ) -> Result<Vec<u8>, SealError> {
        let seed = self.mix(owner, object, kind);
        let (check, masked) = sealed.split_first_chunk::<8>().ok_or(SealError::Broken)?;
        let bytes = Self::apply(seed, masked);
        if Self::check(seed, &bytes) == *check { Ok(bytes) } else { Err(SealError::Broken) }
    }
}

const MARKER: &str = "a marker that nothing else contains";

fn fill(fixture: &Fixture) -> Result<()> {
    let store = fixture.store();
    let (small, large) = (MARKER.repeat(3), MARKER.repeat(3000));
    for (number, record, content) in
        [(1, &small, &small), (2, &small, &large), (3, &large, &large), (4, &large, &small)]
    {
        let (record, content) = (record.as_bytes(), content.as_bytes());
        let picture = Entry::picture(id(number), at(number), record, content);
        let job = Entry::job(id(number), State::Running, at(number), record);
        let (created, expires) = (at(number), at(1000 * number));
        let text = format!("{MARKER} {number}");
        let claim = Claim { text: &text, job: id(number), created, expires };
        let changes = [Change::Add(picture), Change::Set(job), Change::Claim(claim)];
        store.write(ANN, &changes)?;
        store.write(ANN, &[Change::Set(Entry { state: State::Done, ..job })])?;
        ensure!(store.content(ANN, id(number))?.as_deref() == Some(content));
        ensure!(store.record((ANN, Class::Job, id(number)))?.as_deref() == Some(record));
        ensure!(store.find_key(ANN, &text, at(5))? == Some(id(number)));
    }
    store.interrupt_unfinished()?;
    Ok(())
}

#[test]
fn no_byte_that_is_to_be_sealed_is_in_any_file_or_name() -> Result<()> {
    for mode in BlobMode::ALL {
        let mut fixture = Fixture::with(mode, Arc::new(Masked(7)), Arc::new(RealDisk))?;
        fill(&fixture)?;
        ensure!(fixture.store().sealer() == "masked (tests)");
        let folder = fixture.options().folder;
        ensure!(!holds(&folder, MARKER.as_bytes())?, "with {}", mode.name());
        fixture.reopen()?;
        let content = fixture.store().content(ANN, id(3))?.context("a content")?;
        ensure!(content == MARKER.repeat(3000).into_bytes());
        fixture.close();
        ensure!(!holds(&folder, MARKER.as_bytes())?, "with {}, closed", mode.name());

        // The control: without a seal the same search finds it.
        let plain = Fixture::with(mode, Arc::new(Plain), Arc::new(RealDisk))?;
        fill(&plain)?;
        ensure!(plain.store().sealer().contains("not encrypted"));
        ensure!(holds(&plain.options().folder, MARKER.as_bytes())?, "the search finds nothing");
    }
    Ok(())
}

#[test]
fn a_seal_does_not_open_with_another_key_or_in_another_place() -> Result<()> {
    let mut fixture = Fixture::with(BlobMode::Files, Arc::new(Masked(7)), Arc::new(RealDisk))?;
    put(fixture.store(), ANN, 1, 100)?;
    put(fixture.store(), BOB, 1, 100)?;
    fixture.close();
    // The row of one owner under the key of the other, as someone with the disk could put it.
    let db = super::open_sled(&fixture.rows())?;
    let rows = db.open_tree("entries")?;
    let key = |owner: OwnerId| [owner.as_bytes(), &b"p"[..], id(1).as_bytes()].concat();
    let row = rows.get(key(ANN))?.context("a row")?;
    rows.insert(key(BOB), row)?;
    db.flush()?;
    drop((rows, db));
    fixture.reopen()?;
    let broken = ["the record of a picture of 0000", "its seal does not open"];
    says(fixture.store().record((BOB, Class::Picture, id(1))), &broken)?;
    says(fixture.store().content(BOB, id(1)), &["its seal does not open"])?;
    fixture.sealer = Arc::new(Masked(8));
    fixture.reopen()?;
    says(fixture.store().content(ANN, id(1)), &["its seal does not open"])?;
    ensure!(files(&fixture.blobs())?.is_empty());
    Ok(())
}
