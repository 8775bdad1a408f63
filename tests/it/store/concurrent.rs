//! Several threads at once.

use super::{ANN, BOB, each, id, noise, put};
use anyhow::{Context, Result, ensure};
use darkroom::store::{Change, Claim, Class, Entry, Export, Query, State, Store, StoreError};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

#[test]
fn threads_write_read_and_delete_without_harm() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        let work = |thread: u64| -> Result<()> {
            let owner = if thread.is_multiple_of(2) { ANN } else { BOB };
            for turn in 0..12 {
                let number = 100 * thread + turn;
                let length = if turn % 3 == 0 { 300 } else { 30_000 };
                let content = put(store, owner, number, length)?;
                ensure!(store.content(owner, id(number))? == Some(content), "{number}");
                if turn % 2 == 1 {
                    let deleted = store.delete_pictures(owner, &[id(number), id(number - 1)])?;
                    ensure!(deleted.contains(&id(number)), "{number} was gone");
                }
                store.list(owner, &Query::newest(Class::Picture, 50))?;
                for exported in Export::new(store, owner, Class::Picture).take(5) {
                    let exported = exported?;
                    let parts = exported.parts?;
                    let expected =
                        noise(exported.head.created.millis(), exported.head.size as usize);
                    ensure!(parts.content == Some(expected), "an export mixed something up");
                }
            }
            put(store, owner, 100 * thread + 50, 40_000)?;
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (1..=6).map(|number| scope.spawn(move || work(number))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
        })?;
        ensure!(store.usage(ANN).pictures == 3 && store.usage(BOB).pictures == 3);
        let before = store.total();
        let report = fixture.reopen()?;
        ensure!(!report.changed(), "{report}");
        ensure!(fixture.store().total() == before);
        Ok(())
    })
}

#[test]
fn of_many_who_claim_a_key_one_gets_it() -> Result<()> {
    each(|fixture| {
        let store = fixture.store();
        let winners = AtomicU64::new(0);
        let race = |number: u64| -> Result<u64> {
            let job = Entry::job(id(number), State::Queued, super::at(1), b"job");
            let (created, expires) = (super::at(1), super::at(100));
            let claim = Claim { text: "once", job: id(number), created, expires };
            match store.write(ANN, &[Change::Add(job), Change::Claim(claim)]) {
                Ok(_) => {
                    winners.fetch_add(1, Ordering::SeqCst);
                    Ok(number)
                }
                Err(StoreError::KeyTaken { job }) => {
                    Ok(u64::from_be_bytes(*job.as_bytes().last_chunk().context("an id")?))
                }
                Err(error) => Err(error.into()),
            }
        };
        let race = &race;
        let answers = thread::scope(|scope| {
            let threads: Vec<_> = (1..=8).map(|number| scope.spawn(move || race(number))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<u64>>| {
                thread.join().expect("no thread panics")
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        ensure!(winners.load(Ordering::SeqCst) == 1, "{winners:?} claimed the key");
        ensure!(answers.iter().all(|job| *job == answers[0]), "{answers:?}");
        ensure!(store.usage(ANN).jobs == 1);
        Ok(())
    })
}
