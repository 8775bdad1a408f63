//! A failure or a loss of power at every operation on the disk: what was acknowledged is there,
//! what was deleted is not, and nothing is half.

use super::{
    ANN, Fixture, at,
    faulty::{Fault, Faulty, Lie, Loss},
    files, id, noise,
};
use anyhow::{Context, Result, bail, ensure};
use darkroom::{
    domain::ObjectId,
    store::{
        BlobMode, Change, Class, Entry, Options, Plain, Query, RealDisk, SledStore, State, Store,
        StoreError, Usage,
    },
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// What a picture may be after a crash: absent, or these bytes. More than one where nothing was
/// acknowledged.
type Model = BTreeMap<ObjectId, Vec<Option<Vec<u8>>>>;

/// One picture of a step: its number and length, or `None` to delete it.
type Step = &'static [(u64, Option<usize>)];

/// Writes and deletes in rows and in files, alone and together.
const SCRIPT: &[Step] = &[
    &[(1, Some(100))],
    &[(2, Some(20_000))],
    &[(3, Some(40_000)), (4, Some(300)), (5, Some(17_000))],
    &[(1, None), (2, None)],
    &[(6, Some(50_000)), (3, None)],
    &[(5, None), (4, None), (6, None)],
    &[(7, Some(18_000))],
];

/// Plays the script and writes down what may be there afterwards.
fn play(store: &SledStore) -> Result<Model> {
    let mut model = Model::new();
    for step in SCRIPT {
        let contents: Vec<_> = step
            .iter()
            .map(|(number, length)| length.map(|length| noise(*number, length)))
            .collect();
        let changes: Vec<Change<'_>> = step
            .iter()
            .zip(&contents)
            .map(|((number, _), content)| match content {
                Some(content) => {
                    Change::Set(Entry::picture(id(*number), at(*number), b"record", content))
                }
                None => Change::Delete(Class::Picture, id(*number)),
            })
            .collect();
        let result = store.write(ANN, &changes);
        for ((number, _), content) in step.iter().zip(contents) {
            let allowed = model.entry(id(*number)).or_insert_with(|| vec![None]);
            match &result {
                Ok(_) => *allowed = vec![content],
                // Refused before anything was done.
                Err(StoreError::WritesStopped) => {}
                Err(StoreError::Io { .. }) => allowed.push(content),
                Err(error) => bail!("an error of another kind: {error}"),
            }
        }
    }
    Ok(model)
}

/// Opens the folder on a disk that works, and compares.
fn verify(folder: &Path, mode: BlobMode, model: &Model) -> Result<()> {
    let (sealer, disk) = (Arc::new(Plain), Arc::new(RealDisk));
    let options = Options { folder: folder.to_owned(), blobs: mode, sealer, disk };
    let (store, report) = SledStore::open(options)?;
    ensure!(report.lost.is_empty() && report.unreadable.is_empty(), "{report}");
    let (mut there, mut blobs) = (Vec::new(), 0);
    for (picture, allowed) in model {
        let content = store.content(ANN, *picture)?;
        ensure!(
            allowed.contains(&content),
            "{picture}: {:?} bytes, not one of {:?}",
            content.map(|bytes| bytes.len()),
            allowed.iter().map(|bytes| bytes.as_ref().map(Vec::len)).collect::<Vec<_>>()
        );
        if let Some(content) = content {
            let record = store.record((ANN, Class::Picture, *picture))?;
            ensure!(record.as_deref() == Some(b"record"), "{picture}: its record");
            blobs += usize::from(content.len() > 16_384 && mode == BlobMode::Files);
            there.push(*picture);
        }
    }
    let page = store.list(ANN, &Query::newest(Class::Picture, 100))?;
    let listed = page.heads.iter().rev().map(|head| head.id);
    ensure!(listed.eq(there.iter().copied()), "the list does not fit the pictures");
    let bytes = page.heads.iter().map(|head| head.stored).sum();
    let usage = Usage { pictures: there.len() as u64, jobs: 0, bytes };
    ensure!(store.usage(ANN) == usage, "{:?} is not {usage:?}", store.usage(ANN));
    let left = files(&folder.join("blobs"))?.len();
    ensure!(left == blobs, "{left} files for {blobs} pictures");
    // It works on, too.
    let entry = Entry::picture(id(99), at(99), b"", &[9; 20_000]);
    store.write(ANN, &[Change::Add(entry)])?;
    ensure!(store.content(ANN, id(99))? == Some(vec![9; 20_000]));
    drop(store);
    let db = super::open_sled(&folder.join("rows"))?;
    let keys = db.open_tree("entries")?.iter().keys().collect::<Result<Vec<_>, _>>()?;
    let count = |tag: u8| keys.iter().filter(|key| key[16] == tag).count();
    let large = page.heads.iter().map(|head| head.size).chain([20_000]);
    let large = large.filter(|size| *size > 16_384 && mode == BlobMode::Sled);
    let chunks: u64 = large.map(|size| size.div_ceil(16_384)).sum();
    ensure!(count(b'c') as u64 == chunks, "{} chunks and not {chunks}", count(b'c'));
    ensure!(count(b'g') == 0, "a deletion is not finished");
    Ok(())
}

/// Plays on a faulty disk, crashes, and verifies. Gives the number of operations.
fn run(mode: BlobMode, fault: Option<Fault>, lie: Option<Lie>, loss: Loss) -> Result<usize> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("store");
    let disk = Arc::new(Faulty::new(fault, lie));
    let options = Options {
        folder: folder.clone(),
        blobs: mode,
        sealer: Arc::new(Plain),
        disk: disk.clone(),
    };
    let model = match SledStore::open(options) {
        Ok((store, _)) => play(&store)?,
        Err(StoreError::Io { .. }) => Model::new(),
        Err(error) => bail!("an error of another kind: {error}"),
    };
    disk.crash(&folder.join("rows"), loss)?;
    verify(&folder, mode, &model)?;
    Ok(disk.operations())
}

#[test]
fn a_fault_at_any_operation_loses_nothing_and_brings_nothing_back() -> Result<()> {
    for mode in BlobMode::ALL {
        let operations = run(mode, None, None, Loss::All)?;
        ensure!(operations > 20, "only {operations} operations");
        for operation in 1..=operations {
            for (happens, for_good, loss) in [
                (false, true, Loss::All),
                (true, true, Loss::Files),
                (false, false, Loss::Nothing),
                (true, false, Loss::All),
            ] {
                let fault = Fault { operation, happens, for_good };
                let context = || format!("{}, {fault:?}, losing {loss:?}", mode.name());
                run(mode, Some(fault), None, loss).with_context(context)?;
            }
        }
        println!("{}: {operations} operations, each failed in 4 ways", mode.name());
    }
    Ok(())
}

#[test]
fn a_sync_that_does_not_happen_is_noticed() -> Result<()> {
    // The control: with any of the syncs left out, the tests above would fail.
    for (lie, loss) in
        [(Lie::File, Loss::Files), (Lie::Folder, Loss::Files), (Lie::Rows, Loss::All)]
    {
        let outcome = run(BlobMode::Files, None, Some(lie), loss);
        ensure!(outcome.is_err(), "{lie:?} was not noticed");
        run(BlobMode::Files, None, None, loss)?;
    }
    ensure!(run(BlobMode::Sled, None, Some(Lie::Rows), Loss::All).is_err());
    Ok(())
}

#[test]
fn no_value_in_sled_is_above_16_kib() -> Result<()> {
    for mode in BlobMode::ALL {
        let disk = Arc::new(Faulty::default());
        let fixture = Fixture::with(mode, Arc::new(Plain), disk.clone())?;
        for length in [100, 16_200, 16_324, 16_325, 16_384, 16_385, 100_000] {
            let (record, content) = (noise(1, length), noise(2, length));
            for (record, content) in
                [(&record[..], &content[..]), (&record[..9], &content[..]), (&record[..], b"")]
            {
                let entry = Entry::picture(id(length as u64), at(1), record, content);
                fixture.store().write(ANN, &[Change::Set(entry)])?;
                let job = Entry::job(id(length as u64), State::Done, at(1), record);
                fixture.store().write(ANN, &[Change::Set(job)])?;
                let read = fixture.store().content(ANN, id(length as u64))?;
                ensure!(read.as_deref() == Some(content));
            }
        }
        let largest = disk.largest();
        ensure!((16_000..=16_384).contains(&largest), "{}: {largest} bytes", mode.name());
    }
    Ok(())
}

#[test]
fn sled_makes_no_files_of_its_own() -> Result<()> {
    // It writes pages above a quarter of a segment to files that it never syncs.
    for (mode, length) in [(BlobMode::Files, 16_000), (BlobMode::Sled, 400_000)] {
        let fixture = Fixture::new(mode)?;
        let own = fixture.rows().join("blobs");
        for number in 0..40 {
            super::put(fixture.store(), ANN, number, length)?;
            let made = files(&own)?.len();
            ensure!(made == 0, "{}: {made} files after {number} pictures", mode.name());
            if number % 4 == 3 {
                fixture.store().delete_pictures(ANN, &[id(number - 1), id(number - 2)])?;
                ensure!(files(&own)?.is_empty(), "{}: files after deleting", mode.name());
            }
        }
    }
    Ok(())
}

#[test]
fn after_a_failed_sync_reads_go_on_and_writes_do_not() -> Result<()> {
    let count = |operations: &Faulty| operations.operations();
    let disk = Arc::new(Faulty::default());
    let fixture = Fixture::with(BlobMode::Files, Arc::new(Plain), disk.clone())?;
    let opening = count(&disk);
    super::put(fixture.store(), ANN, 1, 20_000)?;
    // The last two of a write that replaces nothing: sled's flush, and the sync behind it.
    let last = count(&disk);
    ensure!(last > opening);
    for operation in [last + (last - opening) - 1, last + (last - opening)] {
        let fault = Fault { operation, happens: false, for_good: false };
        let disk = Arc::new(Faulty::new(Some(fault), None));
        let fixture = Fixture::with(BlobMode::Files, Arc::new(Plain), disk)?;
        let content = super::put(fixture.store(), ANN, 1, 20_000)?;
        ensure!(super::put(fixture.store(), ANN, 2, 20_000).is_err());
        let entry = Entry::picture(id(3), at(3), b"", b"");
        let refused = fixture.store().write(ANN, &[Change::Add(entry)]);
        super::says(refused, &["failed earlier", "restart"])?;
        ensure!(fixture.store().content(ANN, id(1))? == Some(content));
    }
    Ok(())
}

#[test]
fn a_file_that_cannot_be_removed_is_tried_again_and_not_acknowledged() -> Result<()> {
    let fixture = Fixture::new(BlobMode::Files)?;
    let store = fixture.store();
    super::put(store, ANN, 1, 20_000)?;
    let [blob] = &files(&fixture.blobs())?[..] else { bail!("one file") };
    // A folder in its place cannot be removed as a file.
    let kept = std::fs::read(blob)?;
    std::fs::remove_file(blob)?;
    std::fs::create_dir(blob)?;
    ensure!(store.delete_pictures(ANN, &[id(1)]).is_err());
    ensure!(store.head((ANN, Class::Picture, id(1)))?.is_none());
    ensure!(store.delete_pictures(ANN, &[id(1)]).is_err(), "the file is still there");
    std::fs::remove_dir(blob)?;
    std::fs::write(blob, kept)?;
    store.delete_pictures(ANN, &[id(1)])?;
    ensure!(files(&fixture.blobs())?.is_empty());
    Ok(())
}
