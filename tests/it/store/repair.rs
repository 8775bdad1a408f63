//! Orphans, damaged files, damaged databases: told plainly, repaired where they can be.

use super::{ANN, BOB, Fixture, at, files, id, noise, put, says};
use anyhow::{Context, Result, bail, ensure};
use darkroom::store::{
    BlobMode, Change, Class, Entry, Export, Query, SledStore, State, Store, StoreError, salvage,
};
use std::fs;

#[test]
fn a_file_without_an_entry_goes_and_a_foreign_one_stays() -> Result<()> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    put(fixture.store(), ANN, 1, 30_000)?;
    let [blob] = &files(&fixture.blobs())?[..] else { bail!("one file") };
    let orphan = fixture.blobs().join(format!("{}.blob", id(77)));
    fs::copy(blob, &orphan)?;
    let part = fixture.blobs().join(format!("{}.part", id(78)));
    fs::write(&part, b"half")?;
    let foreign = fixture.blobs().join("notes.txt");
    fs::write(&foreign, b"mine")?;
    let report = fixture.reopen()?;
    let counts = (report.orphaned_files, report.unfinished_files, report.foreign_files);
    ensure!(counts == (1, 1, 1), "{report}");
    ensure!(report.to_string().contains("1 files without an entry deleted"), "{report}");
    ensure!(!orphan.exists() && !part.exists() && foreign.exists() && blob.exists());
    ensure!(fixture.store().content(ANN, id(1))? == Some(noise(1, 30_000)));
    fs::remove_file(foreign)?;
    let report = fixture.reopen()?;
    ensure!(!report.changed(), "{report}");
    Ok(())
}

#[test]
fn an_entry_without_its_file_is_lost_until_the_file_is_back() -> Result<()> {
    for cut in [false, true] {
        let mut fixture = Fixture::new(BlobMode::Files)?;
        put(fixture.store(), ANN, 1, 30_000)?;
        put(fixture.store(), BOB, 2, 100)?;
        let [blob] = &files(&fixture.blobs())?[..] else { bail!("one file") };
        let bytes = fs::read(blob)?;
        if cut {
            fs::write(blob, &bytes[..20_000])?;
        } else {
            fs::remove_file(blob)?;
        }
        // Before the sweep knows it, reading does.
        let what = if cut { "is damaged on the disk" } else { "its file is gone" };
        says(fixture.store().content(ANN, id(1)), &[what])?;
        let report = fixture.reopen()?;
        ensure!(report.lost == [(ANN, id(1))], "{report}");
        ensure!(report.to_string().contains("1 pictures lost"), "{report}");
        let head = fixture.store().head((ANN, Class::Picture, id(1)))?.context("a head")?;
        ensure!(head.state == State::Lost);
        says(fixture.store().content(ANN, id(1)), &[what])?;
        let record = fixture.store().record((ANN, Class::Picture, id(1)))?;
        ensure!(record == Some(b"1".to_vec()), "the record is not lost");
        let exported: Vec<_> = Export::new(fixture.store(), ANN, Class::Picture).collect();
        ensure!(matches!(&exported[..], [Ok(one)] if one.parts.is_err()), "{exported:?}");
        // It is told once, and is there again when the file is.
        let report = fixture.reopen()?;
        ensure!(!report.changed(), "{report}");
        fs::write(blob, &bytes)?;
        let report = fixture.reopen()?;
        ensure!(report.found_again == [(ANN, id(1))], "{report}");
        ensure!(fixture.store().content(ANN, id(1))? == Some(noise(1, 30_000)));
        // A lost one can be deleted as any other.
        fs::remove_file(blob)?;
        fixture.reopen()?;
        ensure!(fixture.store().delete_pictures(ANN, &[id(1)])? == [id(1)]);
        ensure!(!fixture.reopen()?.changed() && fixture.store().owners()? == [BOB]);
    }
    Ok(())
}

#[test]
fn a_changed_byte_of_a_file_is_noticed() -> Result<()> {
    let fixture = Fixture::new(BlobMode::Files)?;
    put(fixture.store(), ANN, 1, 30_000)?;
    let [blob] = &files(&fixture.blobs())?[..] else { bail!("one file") };
    let bytes = fs::read(blob)?;
    for place in [0, 10, 45, 60, 90, 200, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[place] ^= 4;
        fs::write(blob, &changed)?;
        let read = fixture.store().content(ANN, id(1));
        says(read, &[&id(1).to_string(), "damaged"]).with_context(|| format!("at {place}"))?;
    }
    fs::write(blob, [&bytes[..], b"x"].concat())?;
    says(fixture.store().content(ANN, id(1)), &["does not have its length"])?;
    Ok(())
}

#[test]
fn a_second_process_is_told_who_has_the_store() -> Result<()> {
    let fixture = Fixture::new(BlobMode::Files)?;
    let folder = fixture.options().folder.display().to_string();
    let second = SledStore::open(fixture.options()).map(|(_, report)| report);
    says(second, &["in use by another process", &folder])?;
    says(salvage(&fixture.options()), &["in use by another process"])?;
    Ok(())
}

/// A store with pictures in rows and in files, closed.
fn filled() -> Result<Fixture> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    for number in 1..=8 {
        put(fixture.store(), ANN, number, if number % 2 == 0 { 40_000 } else { 200 })?;
    }
    let (record, content) = (noise(10, 20_000), noise(9, 40_000));
    let picture = Entry::picture(id(9), at(9), &record, &content).expiring(at(99));
    fixture.store().write(BOB, &[Change::Add(picture)])?;
    fixture.close();
    Ok(fixture)
}

#[test]
fn no_damage_to_the_database_is_a_panic_or_deletes_pictures() -> Result<()> {
    let mut refused = 0;
    for case in 0..24_u64 {
        let mut fixture = filled()?;
        let mut damaged = Vec::new();
        for path in files(&fixture.rows())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut bytes = fs::read(&path)?;
            let target = ["db", "snap", "conf"][case as usize % 3];
            if !name.starts_with(target) || bytes.is_empty() {
                continue;
            }
            let middle = bytes.len() / 2;
            match case / 3 {
                0 => bytes.clear(),
                1 => bytes.truncate(middle),
                2 => bytes.fill(0),
                3 => bytes.fill(0xff),
                4 => bytes[..64.min(middle)].fill(0x55),
                5 => bytes = noise(case, bytes.len()),
                6 => bytes.truncate(1),
                _ => bytes[middle..].fill(0xee),
            }
            fs::write(&path, &bytes)?;
            damaged.push(name);
        }
        let before = files(&fixture.blobs())?.len();
        match SledStore::open(fixture.options()) {
            Ok(_) => continue, // sled did without it
            Err(StoreError::Corrupt { folder, reason }) => {
                ensure!(folder == fixture.options().folder && !reason.is_empty());
            }
            Err(error) => bail!("case {case}, {damaged:?}: {error}"),
        }
        refused += 1;
        let second = SledStore::open(fixture.options()).map(|(_, report)| report);
        let message =
            ["cannot be read", "salvage", &fixture.options().folder.display().to_string()];
        says(second, &message).with_context(|| format!("case {case}, {damaged:?}"))?;
        ensure!(files(&fixture.blobs())?.len() == before, "case {case} deleted pictures");

        let report = salvage(&fixture.options())
            .with_context(|| format!("salvaging case {case}, {damaged:?}"))?;
        let opened = fixture.reopen()?;
        ensure!(!opened.changed(), "case {case}: {opened}");
        if report.database.is_some() {
            ensure!(report.pictures == 5 && report.damaged.is_empty(), "case {case}: {report:?}");
        }
        let store = fixture.store();
        for number in [2, 4, 6, 8] {
            let content = store.content(ANN, id(number))?;
            ensure!(content == Some(noise(number, 40_000)), "case {case}: {number}");
            let record = store.record((ANN, Class::Picture, id(number)))?;
            ensure!(record == Some(number.to_string().into_bytes()));
        }
        let head = store.head((BOB, Class::Picture, id(9)))?.context("a head")?;
        ensure!(head.expires == at(99) && head.created == at(9) && head.size == 40_000);
        ensure!(store.record((BOB, Class::Picture, id(9)))? == Some(noise(10, 20_000)));
        ensure!(store.list(ANN, &Query::newest(Class::Picture, 3))?.heads[0].id == id(8));
        put(store, ANN, 50, 20_000)?;
    }
    ensure!(refused > 3, "only {refused} of the damages were refused");
    println!("{refused} of 24 damages refused and salvaged");
    Ok(())
}

#[test]
fn salvaging_puts_the_database_and_damaged_files_aside() -> Result<()> {
    let mut fixture = filled()?;
    // A database that does not open, and one picture that is damaged as well.
    let db = fixture.rows().join("db");
    fs::write(&db, b"")?;
    let mut blobs = files(&fixture.blobs())?;
    blobs.sort();
    let mut bytes = fs::read(&blobs[0])?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blobs[0], bytes)?;
    let report = salvage(&fixture.options())?;
    ensure!(report.damaged.len() == 1, "{report:?}");
    ensure!(report.damaged[0].exists() && !blobs[0].exists());
    let aside = report.database.context("the database was put aside")?;
    ensure!(aside.is_dir() && aside.ends_with("rows.damaged-1"));
    fixture.reopen()?;
    ensure!(fixture.store().total().pictures >= 4);
    // Of a store that opens nothing is salvaged.
    fixture.close();
    let report = salvage(&fixture.options())?;
    ensure!(report.database.is_none(), "{report:?}");
    Ok(())
}

#[test]
fn a_snapshot_that_sled_was_killed_in_is_no_obstacle() -> Result<()> {
    let mut fixture = filled()?;
    // sled itself takes it for the newest one and refuses to open.
    let unfinished = fixture.rows().join("snap.7FFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, b"half a snapshot")?;
    ensure!(super::open_sled(&fixture.rows()).is_err(), "sled does not mind any more");
    let report = fixture.reopen()?;
    ensure!(!report.changed() && report.entries == 9 && !unfinished.exists(), "{report}");
    ensure!(fixture.store().content(ANN, id(1))? == Some(noise(1, 200)));
    // While another has the store it may be writing one, which is left alone.
    fs::write(&unfinished, b"half a snapshot")?;
    ensure!(SledStore::open(fixture.options()).is_err() && unfinished.exists());
    Ok(())
}

#[test]
fn a_missing_database_deletes_no_pictures() -> Result<()> {
    let mut fixture = filled()?;
    fs::remove_dir_all(fixture.rows())?;
    let opened = SledStore::open(fixture.options()).map(|(_, report)| report);
    says(opened, &["there are pictures, but the database does not know them"])?;
    ensure!(files(&fixture.blobs())?.len() == 6);
    ensure!(salvage(&fixture.options())?.pictures == 5);
    fixture.reopen()?;
    ensure!(fixture.store().content(ANN, id(2))? == Some(noise(2, 40_000)));
    Ok(())
}
