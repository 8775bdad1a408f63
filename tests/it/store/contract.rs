//! What every store does, in every mode.

use super::{ANN, BOB, Fixture, at, each, files, id, noise, put, says};
use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::{ObjectId, OwnerId},
    store::{
        BlobMode, Change, Claim, Class, Cursor, Entry, Export, Query, State, Store, StoreError,
        Time, Usage, random_id,
    },
};
use std::collections::BTreeSet;

#[test]
fn what_is_put_is_there_also_after_opening_again() -> Result<()> {
    each(|fixture| {
        // Around the limits of a row, of a chunk, and of several.
        let sizes = [0, 1, 16_000, 16_300, 16_384, 16_385, 32_768, 40_000, 300_001];
        let mut kept = Vec::new();
        for (number, size) in (1..).zip(sizes) {
            kept.push((number, put(fixture.store(), ANN, number, size)?));
        }
        for round in ["at once", "after opening again"] {
            for (number, content) in &kept {
                let (store, number) = (fixture.store(), *number);
                let read = store.content(ANN, id(number))?.context("a content")?;
                ensure!(read == *content, "{round}: {} bytes changed", content.len());
                let record = store.record((ANN, Class::Picture, id(number)))?;
                ensure!(record == Some(number.to_string().into_bytes()), "{round}: the record");
                let head = store.head((ANN, Class::Picture, id(number)))?.context("a head")?;
                let clear = (head.state, head.size, head.created, head.expires);
                let expected = (State::Stored, content.len() as u64, at(number), Time::NEVER);
                ensure!(clear == expected, "{round}: {head:?}");
            }
            let report = fixture.reopen()?;
            ensure!(!report.changed() && report.entries == 9, "{report}");
        }
        Ok(())
    })
}

#[test]
fn a_large_record_is_kept_as_well() -> Result<()> {
    each(|fixture| {
        let (record, content) = (noise(1, 50_000), noise(2, 90_000));
        let entry = Entry::picture(id(1), at(1), &record, &content);
        fixture.store().write(ANN, &[Change::Add(entry)])?;
        let job = Entry::job(id(2), State::Done, at(2), &record);
        fixture.store().write(ANN, &[Change::Add(job)])?;
        fixture.reopen()?;
        let store = fixture.store();
        ensure!(store.record((ANN, Class::Picture, id(1)))?.as_ref() == Some(&record));
        ensure!(store.content(ANN, id(1))? == Some(content));
        ensure!(store.record((ANN, Class::Job, id(2)))? == Some(record));
        store.write(ANN, &[Change::Delete(Class::Job, id(2))])?;
        store.delete_pictures(ANN, &[id(1)])?;
        ensure!(files(&fixture.blobs())?.is_empty());
        Ok(())
    })
}

#[test]
fn a_write_happens_whole_or_not_at_all() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        put(store, ANN, 1, 20_000)?;
        let content = noise(2, 30_000);
        let new = Entry::picture(id(2), at(2), b"two", &content);
        let taken = Entry::picture(id(1), at(3), b"again", &content);
        let job = Entry::job(id(9), State::Done, at(2), b"job");
        let changes = [Change::Add(new), Change::Set(job), Change::Add(taken)];
        let error = store.write(ANN, &changes).err().context("an id was taken twice")?;
        ensure!(matches!(error, StoreError::Exists { object } if object == id(1)), "{error}");
        ensure!(store.head((ANN, Class::Picture, id(2)))?.is_none());
        ensure!(store.head((ANN, Class::Job, id(9)))?.is_none());
        let blobs = files(&fixture.blobs())?.len();
        let expected = if fixture.mode == BlobMode::Files { 1 } else { 0 };
        ensure!(blobs == expected, "{blobs} files");
        // The same id in another class, or of another owner, is another entry.
        store.write(BOB, &[Change::Add(taken), Change::Set(Entry { id: id(1), ..job })])?;
        ensure!(store.content(ANN, id(1))? == Some(noise(1, 20_000)));
        Ok(())
    })
}

#[test]
fn changes_of_one_write_see_those_before_them() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        let content = noise(1, 40_000);
        let entry = Entry::picture(id(1), at(1), b"one", &content);
        let delete = Change::Delete(Class::Picture, id(1));
        let written = store.write(ANN, &[Change::Add(entry), delete, delete])?;
        ensure!(written.deleted == [id(1)], "{written:?}");
        ensure!(store.content(ANN, id(1))?.is_none() && store.total() == Usage::default());
        store.write(ANN, &[Change::Add(entry), delete, Change::Add(entry)])?;
        ensure!(store.content(ANN, id(1))?.as_ref() == Some(&content));
        ensure!(fixture.reopen()?.entries == 1);
        ensure!(fixture.store().content(ANN, id(1))?.as_ref() == Some(&content));
        Ok(())
    })
}

#[test]
fn deletion_takes_many_and_gives_the_room_back() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        for number in 1..=20 {
            put(store, ANN, number, 100_000)?;
        }
        ensure!(store.usage(ANN).pictures == 20 && store.usage(ANN).bytes > 2_000_000);
        let ids: Vec<ObjectId> = (3..=20).map(id).chain([id(3), id(99)]).collect();
        let deleted = store.delete_pictures(ANN, &ids)?;
        ensure!(deleted == (3..=20).map(id).collect::<Vec<_>>(), "{deleted:?}");
        ensure!(store.delete_pictures(ANN, &ids)?.is_empty());
        let page = store.list(ANN, &Query::newest(Class::Picture, 100))?;
        ensure!(page.heads.iter().map(|head| head.id).eq([id(2), id(1)]));
        if fixture.mode == BlobMode::Files {
            let used = store.disk_use()?.blobs;
            ensure!((200_000..210_000).contains(&used), "{used} bytes in files");
        }
        fixture.reopen()?;
        let store = fixture.store();
        for number in 3..=20 {
            ensure!(store.content(ANN, id(number))?.is_none(), "{number} is back");
            ensure!(store.record((ANN, Class::Picture, id(number)))?.is_none());
        }
        ensure!(store.total().pictures == 2);
        Ok(())
    })
}

#[test]
fn two_owners_never_see_each_other() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        // Neighbours, and both ends of the order of keys.
        let mut next = *ANN.as_bytes();
        next[15] += 1;
        let owners = [[0; 16], *ANN.as_bytes(), next, *BOB.as_bytes(), [0xff; 16]];
        let owners = owners.map(OwnerId::from_bytes);
        for (at, owner) in (0..).zip(owners) {
            for number in 1..=3 {
                // The same ids for all of them.
                let content = noise(100 * at + number, 20_000);
                let entry = Entry::picture(id(number), super::at(number), b"r", &content);
                store.write(owner, &[Change::Add(entry)])?;
            }
            let job = Entry::job(id(at), State::Queued, super::at(1), b"j");
            let text = "the same key";
            let (created, expires) = (super::at(1), super::at(10));
            let claim = Claim { text, job: id(at), created, expires };
            store.write(owner, &[Change::Add(job), Change::Claim(claim)])?;
        }
        ensure!(store.owners()? == owners);
        store.delete_pictures(owners[1], &[id(1), id(2), id(3)])?;
        for (at, owner) in (0..).zip(owners) {
            let there = if at == 1 { 0 } else { 3 };
            for number in 1..=3 {
                let content = store.content(owner, id(number))?;
                let expected = (at != 1).then(|| noise(100 * at + number, 20_000));
                ensure!(content == expected, "owner {at}, picture {number}");
            }
            let page = store.list(owner, &Query::newest(Class::Picture, 10))?;
            ensure!(page.heads.len() == there && page.next.is_none(), "owner {at}: {page:?}");
            let jobs = store.list(owner, &Query::newest(Class::Job, 10))?;
            ensure!(jobs.heads.iter().map(|head| head.id).eq([id(at)]), "owner {at}: {jobs:?}");
            ensure!(store.find_key(owner, "the same key", super::at(2))? == Some(id(at)));
            let usage = store.usage(owner);
            ensure!((usage.pictures, usage.jobs) == (there as u64, 1), "owner {at}: {usage:?}");
            ensure!(Export::new(store, owner, Class::Picture).count() == there);
        }
        ensure!(store.total().pictures == 12 && store.total().jobs == 5);
        Ok(())
    })
}

#[test]
fn pages_stay_as_they_are_while_newer_ones_come() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        for number in (10..=100).step_by(10) {
            put(store, ANN, number, 10)?;
        }
        let mut query = Query::newest(Class::Picture, 3);
        let (mut seen, mut newer) = (Vec::new(), 1000);
        loop {
            let page = store.list(ANN, &query)?;
            seen.extend(page.heads.iter().map(|head| head.created.millis()));
            put(store, ANN, newer, 10)?;
            newer += 1;
            // What stands on a page that was read may go.
            store.delete_pictures(ANN, &[id(seen[0])])?;
            let Some(next) = page.next else { break };
            ensure!(next.to_string().parse::<Cursor>()? == next);
            query.after = Some(next);
        }
        ensure!(seen == [100, 90, 80, 70, 60, 50, 40, 30, 20, 10], "{seen:?}");
        // The same moment is told apart by the id; a page ends between them.
        for number in 1..=4 {
            let entry = Entry::picture(id(5000 + number), at(5), b"", b"");
            store.write(BOB, &[Change::Add(entry)])?;
        }
        let first = store.list(BOB, &Query::newest(Class::Picture, 2))?;
        let after = Query { after: first.next, ..Query::newest(Class::Picture, 2) };
        let second = store.list(BOB, &after)?;
        let ids: BTreeSet<_> = first.heads.iter().chain(&second.heads).map(|h| h.id).collect();
        ensure!(ids.len() == 4 && second.next.is_none());
        for text in ["", "0", "x".repeat(48).as_str(), "+00000000000000f", &"é".repeat(24)] {
            says(text.parse::<Cursor>(), &["not a cursor"])?;
        }
        Ok(())
    })
}

#[test]
fn a_range_of_time_has_its_beginning_and_not_its_end() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        for number in [0, 1, 5, 9, 10, u64::MAX - 1] {
            let entry = Entry::picture(random_id()?, at(number), b"", b"");
            store.write(ANN, &[Change::Add(entry)])?;
        }
        let listed = |from: Option<u64>, until: Option<u64>, limit: usize| {
            let mut query = Query::newest(Class::Picture, limit);
            (query.from, query.until) = (from.map(at), until.map(at));
            let mut times = Vec::new();
            loop {
                let page = store.list(ANN, &query)?;
                times.extend(page.heads.iter().map(|head| head.created.millis()));
                query.after = page.next;
                if page.next.is_none() {
                    return Ok::<_, StoreError>(times);
                }
            }
        };
        for limit in [0, 1, 2, 100, usize::MAX] {
            for (from, until, expected) in [
                (Some(1), Some(10), vec![9, 5, 1]),
                (Some(2), Some(9), vec![5]),
                (None, Some(1), vec![0]),
                (None, Some(0), vec![]),
                (Some(10), None, vec![u64::MAX - 1, 10]),
                (Some(5), Some(5), vec![]),
                (None, Some(u64::MAX), vec![u64::MAX - 1, 10, 9, 5, 1, 0]),
            ] {
                let times = listed(from, until, limit)?;
                ensure!(times == expected, "{from:?}..{until:?} by {limit}: {times:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn jobs_go_through_their_states_and_are_interrupted_by_a_restart() -> Result<()> {
    each(|fixture| {
        let states = [
            State::Queued,
            State::Running,
            State::Done,
            State::Failed,
            State::Cancelled,
            State::Interrupted,
        ];
        for (number, state) in (1..).zip(states) {
            for owner in [ANN, BOB] {
                let job = Entry::job(id(number), State::Queued, at(number), b"before");
                fixture.store().write(owner, &[Change::Add(job)])?;
                let job = Entry { state, record: b"after", ..job };
                fixture.store().write(owner, &[Change::Set(job)])?;
            }
        }
        let usage = fixture.store().usage(ANN);
        fixture.reopen()?;
        let store = fixture.store();
        ensure!(store.usage(ANN) == usage && usage.jobs == 6, "{usage:?}");
        ensure!(store.interrupt_unfinished()? == 4);
        ensure!(store.interrupt_unfinished()? == 0);
        fixture.reopen()?;
        let store = fixture.store();
        for owner in [ANN, BOB] {
            for (number, state) in (1..).zip(states) {
                let job = (owner, Class::Job, id(number));
                let head = store.head(job)?.context("a job")?;
                let expected = if state.unfinished() { State::Interrupted } else { state };
                ensure!(head.state == expected, "{head:?}");
                ensure!(store.record(job)? == Some(b"after".to_vec()));
            }
        }
        // The picture and the end of its job are one write.
        let picture = Entry::picture(id(50), at(50), b"p", b"pixels");
        let job = Entry::job(id(1), State::Done, at(1), b"with a result");
        store.write(ANN, &[Change::Add(picture), Change::Set(job)])?;
        ensure!(store.list(ANN, &Query::newest(Class::Job, 10))?.heads.len() == 6);
        Ok(())
    })
}

#[test]
fn an_idempotency_key_holds_until_it_expires() -> Result<()> {
    each(|fixture| {
        let claim = |job, created, expires| {
            let (created, expires) = (at(created), at(expires));
            Change::Claim(Claim { text: "key of a client", job: id(job), created, expires })
        };
        let job = |number| Change::Add(Entry::job(id(number), State::Queued, at(1), b"j"));
        fixture.store().write(ANN, &[job(1), claim(1, 10, 20)])?;
        fixture.reopen()?;
        let store = fixture.store();
        let error = store.write(ANN, &[job(2), claim(2, 19, 30)]).err().context("claimed twice")?;
        ensure!(matches!(error, StoreError::KeyTaken { job } if job == id(1)), "{error}");
        ensure!(store.head((ANN, Class::Job, id(2)))?.is_none(), "the job of a refused claim");
        ensure!(store.find_key(ANN, "key of a client", at(19))? == Some(id(1)));
        ensure!(store.find_key(ANN, "key of a client", at(20))?.is_none());
        ensure!(store.find_key(ANN, "another", at(19))?.is_none());
        store.write(ANN, &[job(2), claim(2, 20, 30)])?;
        ensure!(store.find_key(ANN, "key of a client", at(29))? == Some(id(2)));
        // Expired entries of any class are found, and deleting them is one write.
        let picture = Entry::picture(id(7), at(1), b"", &[1; 20_000]).expiring(at(25));
        store.write(ANN, &[Change::Add(picture)])?;
        ensure!(store.expired(at(24))?.is_empty());
        ensure!(store.expired(at(25))? == [(ANN, Class::Picture, id(7))]);
        let expired = store.expired(at(40))?;
        ensure!(expired.len() == 2, "{expired:?}");
        let changes: Vec<_> =
            expired.iter().map(|(_, class, id)| Change::Delete(*class, *id)).collect();
        ensure!(store.write(ANN, &changes)?.deleted.len() == 2);
        ensure!(store.expired(at(u64::MAX - 1))?.is_empty());
        Ok(())
    })
}

#[test]
fn an_export_has_everything_once() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        for number in 1..=300 {
            put(store, ANN, number, if number % 50 == 0 { 20_000 } else { 100 })?;
        }
        let mut seen = BTreeSet::new();
        for exported in Export::new(store, ANN, Class::Picture) {
            let exported = exported?;
            let number = exported.head.created.millis();
            let parts = exported.parts?;
            ensure!(parts.record == number.to_string().into_bytes());
            ensure!(parts.content == Some(noise(number, exported.head.size as usize)));
            ensure!(seen.insert(number), "{number} twice");
        }
        ensure!(seen.len() == 300);
        Ok(())
    })
}

#[test]
fn a_store_opens_in_either_mode_and_finds_all() -> Result<()> {
    let mut fixture = Fixture::new(BlobMode::Files)?;
    let first = put(fixture.store(), ANN, 1, 50_000)?;
    fixture.mode = BlobMode::Sled;
    fixture.reopen()?;
    let second = put(fixture.store(), ANN, 2, 50_000)?;
    ensure!(files(&fixture.blobs())?.len() == 1);
    fixture.mode = BlobMode::Files;
    fixture.reopen()?;
    let store = fixture.store();
    ensure!(store.content(ANN, id(1))? == Some(first));
    ensure!(store.content(ANN, id(2))? == Some(second));
    ensure!(store.delete_pictures(ANN, &[id(1), id(2)])?.len() == 2);
    ensure!(files(&fixture.blobs())?.is_empty() && store.total() == Usage::default());
    Ok(())
}

#[test]
fn ids_are_parsed_and_have_one_spelling() -> Result<()> {
    let text = "00112233445566778899aabbccddeeff";
    let parsed: ObjectId = text.parse()?;
    ensure!(parsed.to_string() == text && format!("{parsed:?}") == format!("ObjectId({text})"));
    ensure!(random_id()? != random_id()?);
    let long = "0".repeat(33);
    let wrong = ["", "../../etc/passwd", &long, &text.to_uppercase(), &text[1..], &"é".repeat(16)];
    for wrong in wrong {
        ensure!(wrong.parse::<ObjectId>().is_err() && wrong.parse::<OwnerId>().is_err(), "{wrong}");
    }
    Ok(())
}
