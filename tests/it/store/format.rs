//! The bytes on the disk: what version 1 wrote is read for ever, and what is newer is refused.

use super::{ANN, Fixture, at, files, id, noise, open_sled, put, says};
use anyhow::{Context, Result, bail, ensure};
use darkroom::{
    domain::OwnerId,
    store::{BlobMode, Class, Query, SledStore, State, Store, Time},
};
use std::fs;

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(pair).collect()
}

/// A picture with its content in the row, and a job.
const PICTURE: &str = "01 01 0000000000000011 ffffffffffffffff 0000000000000003 \
                       01 00000004 6e6f7465 01 00000003 010203";
const JOB: &str = "01 04 0000000000000012 0000000000000099 0000000000000001 01 00000001 6a 00";

/// Writes rows as a store of version 1 did, or as a newer one would.
fn written_by_hand(
    fixture: &mut Fixture,
    format: &str,
    rows: &[(OwnerId, &[u8], u64, Vec<u8>)],
) -> Result<()> {
    fixture.close();
    fs::remove_dir_all(fixture.rows())?;
    let db = open_sled(&fixture.rows())?;
    let salt = [7; 32];
    db.open_tree("store")?.insert("format", [&bytes(format)?[..], &salt].concat())?;
    let entries = db.open_tree("entries")?;
    for (owner, class, number, row) in rows {
        let object = id(*number);
        entries.insert([owner.as_bytes(), *class, object.as_bytes()].concat(), &row[..])?;
        let created = row.get(2..10).context("a row has a time")?;
        let inverted: Vec<u8> = created.iter().map(|byte| !byte).collect();
        let list = [owner.as_bytes(), &b"t"[..], class, &inverted, object.as_bytes()].concat();
        entries.insert(list, &[][..])?;
    }
    db.flush()?;
    Ok(())
}

#[test]
fn entries_of_version_1_are_read() -> Result<()> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    let rows = [(ANN, &b"p"[..], 1, bytes(PICTURE)?), (ANN, b"j", 2, bytes(JOB)?)];
    written_by_hand(&mut fixture, "00000001", &rows)?;
    let report = fixture.reopen()?;
    ensure!(!report.changed() && report.entries == 2, "{report}");
    let store = fixture.store();
    ensure!(store.content(ANN, id(1))? == Some(vec![1, 2, 3]));
    ensure!(store.record((ANN, Class::Picture, id(1)))? == Some(b"note".to_vec()));
    let head = store.head((ANN, Class::Picture, id(1)))?.context("a head")?;
    ensure!((head.created, head.expires, head.size) == (at(0x11), Time::NEVER, 3), "{head:?}");
    let job = store.head((ANN, Class::Job, id(2)))?.context("a head")?;
    ensure!((job.state, job.expires) == (State::Running, at(0x99)), "{job:?}");
    ensure!(store.list(ANN, &Query::newest(Class::Job, 9))?.heads == [job]);
    ensure!(store.interrupt_unfinished()? == 1);
    Ok(())
}

#[test]
fn rows_are_written_as_version_1_says() -> Result<()> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    let entry = darkroom::store::Entry::picture(id(1), at(0x11), b"note", &[1, 2, 3]);
    fixture.store().write(ANN, &[darkroom::store::Change::Add(entry)])?;
    fixture.close();
    let db = open_sled(&fixture.rows())?;
    let rows = db.open_tree("entries")?;
    let key = [ANN.as_bytes(), &b"p"[..], id(1).as_bytes()].concat();
    ensure!(rows.get(key)?.context("a row")?.to_vec() == bytes(PICTURE)?);
    ensure!(rows.len() == 2, "an entry and its place in the list");
    Ok(())
}

#[test]
fn a_row_says_where_its_value_lies_as_version_1_says() -> Result<()> {
    for (mode, place) in [(BlobMode::Files, 2), (BlobMode::Sled, 3)] {
        let mut fixture = Fixture::new(mode)?;
        let content = put(fixture.store(), ANN, 1, 17_000)?;
        fixture.close();
        let rows = open_sled(&fixture.rows())?.open_tree("entries")?;
        let chunks = [ANN.as_bytes(), &b"c"[..], id(1).as_bytes()].concat();
        let chunks = rows.scan_prefix(&chunks).collect::<Result<Vec<_>, _>>()?;
        let value = match (files(&fixture.blobs())?.first(), &chunks[..]) {
            (Some(file), []) => bytes(&file.file_stem().context("a name")?.to_string_lossy())?,
            (None, [(first, whole), (second, rest)]) => {
                ensure!(first[..49] == second[..49] && first[49..] == [0; 4]);
                ensure!(second[49..] == [0, 0, 0, 1] && whole.len() == 16_384);
                ensure!([&whole[..], rest].concat() == content);
                first[33..49].to_vec()
            }
            _ => bail!("a value in two places, or in none"),
        };
        let head = "01 01 0000000000000001 ffffffffffffffff 0000000000004268 01 00000001 31";
        let mut expected = [bytes(head)?, vec![place], value].concat();
        expected.extend(17_000_u64.to_be_bytes());
        expected.extend(crc32(&content).to_be_bytes());
        let key = [ANN.as_bytes(), &b"p"[..], id(1).as_bytes()].concat();
        ensure!(rows.get(key)?.context("a row")?.to_vec() == expected, "{}", mode.name());
    }
    Ok(())
}

#[test]
fn a_file_of_version_1_is_read() -> Result<()> {
    let fixture = Fixture::new(BlobMode::Files)?;
    let content = put(fixture.store(), ANN, 1, 17_000)?;
    let path = files(&fixture.blobs())?.pop().context("a file")?;
    // 64 bytes, the row with its record and without this content, and a checksum.
    let row = "01 01 0000000000000001 ffffffffffffffff 0000000000004268 01 00000001 31 00";
    let head = format!(
        "64726b626c6f62 01 {} {} 70 01 0000000000004268 {:08x} 00000021",
        "aa".repeat(16),
        id(1),
        crc32(&content),
    );
    let mut expected = [bytes(&head)?, bytes(row)?].concat();
    expected.extend(crc32(&expected).to_be_bytes());
    expected.extend(&content);
    ensure!(fs::read(path)? == expected);
    Ok(())
}

/// The checksum of zlib, written out so that a change of the crate cannot change the format.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let crc = crc ^ u32::from(*byte);
        (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn a_newer_store_is_refused_and_a_newer_entry_is_told() -> Result<()> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    put(fixture.store(), ANN, 5, 30_000)?;
    let kept = files(&fixture.blobs())?;
    written_by_hand(&mut fixture, "00000002", &[])?;
    let opened = SledStore::open(fixture.options()).map(|(_, report)| report);
    let folder = fixture.options().folder.display().to_string();
    says(opened, &["has format 2", "up to 1", "newer Darkroom", &folder])?;

    let (mut newer, mut strange) = (bytes(PICTURE)?, bytes(PICTURE)?);
    newer[0] = 2;
    strange[1] = 200;
    let cut = bytes(PICTURE)?[..30].to_vec();
    let long = [bytes(PICTURE)?, vec![0]].concat();
    let rows = [(1, newer), (2, strange), (3, cut), (4, long)];
    let rows = rows.map(|(number, row)| (ANN, &b"p"[..], number, row));
    written_by_hand(&mut fixture, "00000001", &rows)?;
    let report = fixture.reopen()?;
    ensure!(report.unreadable.len() == 4 && report.kept_files == 1, "{report}");
    ensure!(files(&fixture.blobs())? == kept, "a file of an unreadable entry may not go");
    let store = fixture.store();
    let reasons = ["version 2, of a newer Darkroom", "state is not known", "cut short", "goes on"];
    for (number, reason) in (1..).zip(reasons) {
        says(store.content(ANN, id(number)), &[&id(number).to_string(), reason])?;
        ensure!(store.head((ANN, Class::Picture, id(number))).is_err());
    }
    // They can be deleted, and then the file that nobody names goes too.
    let ids = [id(1), id(2), id(3), id(4), id(9)];
    ensure!(store.delete_pictures(ANN, &ids)? == ids[..4]);
    ensure!(store.list(ANN, &Query::newest(Class::Picture, 9))?.heads.is_empty());
    let report = fixture.reopen()?;
    ensure!(report.orphaned_files == 1 && report.unreadable.is_empty(), "{report}");
    Ok(())
}

#[test]
fn no_bytes_of_a_row_are_a_panic() -> Result<()> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    let mut rows = Vec::new();
    for number in 1..=400 {
        let mut row = if number % 3 == 0 { bytes(JOB)? } else { bytes(PICTURE)? };
        let dice = noise(number, 4);
        let place = usize::from(dice[0]) % row.len();
        row[place] ^= dice[1];
        row.truncate(
            row.len() - usize::from(dice[2].is_multiple_of(4)) * usize::from(dice[3]) % row.len(),
        );
        row.resize(row.len().max(10), 0);
        rows.push((ANN, &b"p"[..], number, row));
    }
    written_by_hand(&mut fixture, "00000001", &rows)?;
    let report = fixture.reopen()?;
    ensure!(report.entries == 400, "{report}");
    for number in 1..=400 {
        // Any answer but a panic is right.
        drop(fixture.store().content(ANN, id(number)));
        drop(fixture.store().record((ANN, Class::Picture, id(number))));
    }
    Ok(())
}
