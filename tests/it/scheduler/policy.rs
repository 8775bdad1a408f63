//! The policy as a table: a line of text in, a line of text out.

use anyhow::{Context, Result, ensure};
use darkroom::{
    engine::Cost,
    scheduler::{
        Active, Activity, Credits, JobId, Limits, Peer, Plan, Priority, StopReason, User, Waiting,
        order, plan,
    },
};
use std::{collections::BTreeMap, time::Duration};

/// The second at which all of it happens.
const NOW: Duration = Duration::from_secs(100);

/// Three jobs, two of a user, 100 tokens, 100 bytes; a batch job ages in a minute.
const LIMITS: Limits = Limits {
    jobs: 3,
    jobs_per_user: 2,
    tokens: 100,
    memory: 100,
    waiting: 100,
    patience: Duration::from_secs(60),
    remembered: 0,
};

/// `a1:30` is job 1 of user a, 30 tokens and units of work; `*5` gives it 5 bytes instead of 1, `^7` 7
/// more at its peak, `b` makes it a batch job, `@7` lets it wait since second 7 instead of 99.
fn waiting(text: &str) -> Result<Waiting> {
    let number = |mark: char| -> Result<Option<u64>> {
        let Some((_, tail)) = text.split_once(mark) else { return Ok(None) };
        let digits = tail.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        Ok(Some(digits.parse()?))
    };
    let (user, rest) = text.split_at(1);
    let id: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let work = number(':')?.unwrap_or(10);
    let cost = Cost {
        tokens: work as usize,
        memory: number('*')?.unwrap_or(1),
        peak: number('^')?.unwrap_or(0),
        before: work,
        ..Cost::default()
    };
    let priority = if rest.contains('b') { Priority::Batch } else { Priority::Interactive };
    let since = Duration::from_secs(number('@')?.unwrap_or(99));
    let id = JobId(id.parse().with_context(|| text.to_owned())?);
    Ok(Waiting { id, user: User::new(user), priority, cost, since })
}

/// As in the queue, and `/text3` is being prepared after 3 slices, `/step` is ready, `/done3` is
/// being decoded.
fn active(text: &str) -> Result<Active> {
    let (job, activity) = text.split_once('/').context("a running job has an activity")?;
    let slices = activity.trim_start_matches(char::is_alphabetic).parse().unwrap_or(0);
    let activity = match activity.trim_end_matches(char::is_numeric) {
        "text" => Activity::Preparing,
        "step" => Activity::Stepping,
        "done" => Activity::Finishing,
        other => anyhow::bail!("{other}"),
    };
    let job = waiting(job)?;
    let left = job.cost.work();
    Ok(Active { job, activity, slices, left })
}

/// Another engine, of a lower number unless it is `later`, that takes jobs unless it is `closed`.
struct Other {
    running: Vec<Active>,
    open: bool,
    first: bool,
}

fn other(text: &str) -> Result<Other> {
    let jobs: String = text.replace("later", "").replace("closed", "");
    let (open, first) = (!text.contains("closed"), !text.contains("later"));
    Ok(Other { running: list(&jobs, active)?, open, first })
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    text.split_whitespace().map(parse).collect()
}

fn show(plan: &Plan) -> String {
    let ids = |ids: &[JobId]| ids.iter().map(|id| format!(" {}", id.0)).collect::<String>();
    let part = |what: &str, jobs: &[JobId]| {
        if jobs.is_empty() { String::new() } else { format!(" {what}{}", ids(jobs)) }
    };
    let (step, slice) = (part("step", &plan.step), part("slice", &plan.slice));
    format!("admit{} {}{step}{slice}", ids(&plan.admit), plan.stop.name())
}

#[test]
fn the_policy_decides_as_the_table_says() -> Result<()> {
    // what | running ; in another engine | waiting | decision
    let table = "
        nothing to do                      |                    |                   | admit queue_empty
        one job goes                       |                    | a1                | admit 1 queue_empty
        in order of arrival within a user  |                    | a2 a1             | admit 2 1 queue_empty
        in turn between users              |                    | a1 a2 b3          | admit 1 3 2 queue_empty
        no more jobs than the engine takes | a1/step b2/step    | c3 d4             | admit 3 max_jobs step 1 2
        no more of a user than they may    | a1/step a2/text    | a3                | admit user_limit step 1 slice 2
        another user passes a limited one  | a1/step a2/step    | a3 b4             | admit 4 max_jobs step 1 2
        a user's limit counts what goes    |                    | a1 a2 a3          | admit 1 2 user_limit
        tokens of a batch                  | a1:60/step         | b2:50             | admit token_budget step 1
        tokens that just fit               | a1:60/step         | b2:40             | admit 2 queue_empty step 1
        predicted memory                   | a1*60/step         | b2*41             | admit memory_budget step 1
        memory that just fits              | a1*60/step         | b2*40             | admit 2 queue_empty step 1
        no small job overtakes a large one | a1:60/step         | b2:50 c3:50       | admit token_budget step 1
        nor does a later one of its user   | a1:60/step         | b2:50 b3:10       | admit token_budget step 1
        the cheaper of two users goes      | a1:60/step         | b2:50 c3:10       | admit 3 token_budget step 1
        alone, anything goes               |                    | a1:500*500        | admit 1 queue_empty
        but nothing beside it              |                    | a1:500 a2         | admit 1 token_budget
        interactive before batch           |                    | a1b b2            | admit 2 1 queue_empty
        also within a user                 |                    | a1b a2            | admit 2 1 queue_empty
        batch waits for interactive ones   | a1/step a2/step    | b3b c4            | admit 4 max_jobs step 1 2
        batch goes past a limited user     | a1/step a2/step    | a3 b4b            | admit 4 max_jobs step 1 2
        an aged batch job is interactive   | a1/step a2/step    | b3b@40 c4         | admit 3 max_jobs step 1 2
        not a second sooner                | a1/step a2/step    | b3b@41 c4         | admit 4 max_jobs step 1 2
        all who are ready step             | a1/step b2/step    |                   | admit queue_empty step 1 2
        slices in order of arrival         | b2/text a1/text    |                   | admit queue_empty slice 1 2
        first to whom had the fewest       | a1/text2 b2/done1  |                   | admit queue_empty slice 2 1
        finishing before preparing         | a1/text b2/done    |                   | admit queue_empty slice 2 1
        interactive slices first           | a1b/done b2/text9  |                   | admit queue_empty slice 2 1
        aged slices as interactive         | a1b@9/done b2/text9|                   | admit queue_empty slice 1 2
        steps and a slice in one tick      | a1/step b2/text    | c3                | admit 3 queue_empty step 1 slice 2
        a peak beside what others hold     | a1*30^50/step      | b2*20^10          | admit 2 queue_empty step 1
        a byte too much beside it          | a1*30^50/step      | b2*21^10          | admit memory_budget step 1
        whichever peak is larger           | a1*30^10/step      | b2*20^51          | admit memory_budget step 1
        one of several peaks counts        | a1*10^40/text b2*10^40/text | c3*40    | admit 3 queue_empty slice 1
        two begin where both have room     | a1*10^40/text b2*10^40/text |          | admit queue_empty slice 1 2
        the second waits where not         | a1*10^41/text b2*10^40/text |          | admit queue_empty slice 1
        for the one that has begun         | a1*10^60/text3 b2*10^60/text |         | admit queue_empty slice 1
        and none overtakes it              | a1*10^60/text3 b2*10^60/done c3/text | | admit queue_empty slice 1
        steps hold no peak                 | a1*10^60/step b2*10^60/text |          | admit queue_empty step 1 slice 2
        all peaks that are held count      | a1*5^40/text1 b2*5^40/text1 | c3*10    | admit 3 queue_empty slice 1 2
        to the byte                        | a1*5^40/text1 b2*5^40/text1 | c3*11    | admit memory_budget slice 1 2
        to whom has less to do             | a1:10/step ; b2:30/step | c3           | admit 3 queue_empty step 1
        not while another has less         | a1:30/step ; b2:20/step | c3           | admit other_engine step 1
        as much in both, the first         | ; later            | a1                | admit 1 queue_empty
        not the second                     | ;                  | a1                | admit other_engine
        in turn between empty engines      | ; later            | a1:20 a2:5 a3:5   | admit 1 other_engine
        here where there it has no room    | a1:30/step ; b2:20*60/step | c3*41     | admit 3 queue_empty step 1
        nor one for another job            | a1:90/step ; b2:1/step b3:1/step c4:1/step | d5 | admit 5 queue_empty step 1
        a closed engine is none            | a1:30/step ; closed | c3               | admit 3 queue_empty step 1
        a user's limit counts both         | a1/step ; a2/step  | a3                | admit user_limit step 1
        and the closed one                 | a1/step ; closed a2/step | a3          | admit user_limit step 1
    ";
    let lines: Vec<&str> = table.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut stops = BTreeMap::new();
    for line in &lines {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [what, running, queue, expected] = columns[..] else { anyhow::bail!("{line}") };
        let mut engines = running.split(';');
        let running = list(engines.next().unwrap_or_default(), active)?;
        let others = engines.map(other).collect::<Result<Vec<_>>>()?;
        let mut peers = Vec::new();
        for Other { running, open, first } in &others {
            peers.push(Peer { running, open: *open, first: *first });
        }
        let queue = list(queue, waiting)?;
        let plan = plan(&queue, &running, &peers, &LIMITS, &Credits::default(), NOW);
        ensure!(show(&plan) == expected, "{what}: {}, expected {expected}", show(&plan));
        *stops.entry(plan.stop).or_insert(0) += 1;
    }
    ensure!(StopReason::ALL.iter().all(|stop| stops.contains_key(stop)), "{stops:?}");
    Ok(())
}

#[test]
fn users_who_keep_jobs_waiting_are_given_the_same_work_whatever_the_jobs_sizes() -> Result<()> {
    // Of a many small ones, of b few large ones, of c both; one at a time.
    let sizes = |user: &str, round: u64| match user {
        "a" => 7,
        "b" => 90,
        _ => {
            if round.is_multiple_of(2) {
                11
            } else {
                60
            }
        }
    };
    let limits = Limits { jobs: 1, ..LIMITS };
    let (mut credits, mut served) = (Credits::default(), BTreeMap::<User, u64>::new());
    let mut queue = Vec::new();
    for id in 0..3000 {
        let user = ["a", "b", "c"][id % 3];
        queue.push(waiting(&format!("{user}{id}:{}", sizes(user, id as u64 / 3)))?);
    }
    for _ in 0..500 {
        let plan = plan(&queue, &[], &[], &limits, &credits, NOW);
        credits = plan.credits;
        for id in plan.admit {
            let index = queue.iter().position(|job| job.id == id).context("admitted")?;
            let job = queue.remove(index);
            *served.entry(job.user).or_default() += job.cost.work();
        }
    }
    let (least, most) =
        (served.values().min().context("some")?, served.values().max().context("some")?);
    println!("work of three users: {served:?}");
    ensure!(served.len() == 3 && most - least <= 90, "{served:?}");
    Ok(())
}

#[test]
fn the_order_told_to_the_queue_is_the_order_of_admission() -> Result<()> {
    let queue = list("a1 a2:30 a3 b4:50 b5b c6:20 c7b@1 d8:5 d9:5 d10:5", waiting)?;
    let told = order(&queue, &LIMITS, &Credits::default(), NOW);
    let limits = Limits { jobs: 1, ..LIMITS };
    let (mut left, mut credits, mut admitted) = (queue.clone(), Credits::default(), Vec::new());
    while !left.is_empty() {
        let plan = plan(&left, &[], &[], &limits, &credits, NOW);
        credits = plan.credits;
        left.retain(|job| !plan.admit.contains(&job.id));
        admitted.extend(plan.admit);
    }
    ensure!(told == admitted, "{told:?}, but {admitted:?}");
    ensure!(told.len() == queue.len());
    Ok(())
}

#[test]
fn who_has_nothing_waiting_saves_nothing_up() -> Result<()> {
    let queue = list("a1 b2:50", waiting)?;
    let first = plan(&queue, &[], &[], &Limits { jobs: 1, ..LIMITS }, &Credits::default(), NOW);
    ensure!(show(&first) == "admit 1 max_jobs");
    // b's credit of 10 is kept while it waits, and gone with its job.
    let queue = list("b2:50 c3:45", waiting)?;
    let kept = plan(&queue, &[], &[], &Limits { jobs: 1, ..LIMITS }, &first.credits, NOW);
    ensure!(show(&kept) == "admit 2 max_jobs", "{}", show(&kept));
    let gone = plan(&[], &[], &[], &LIMITS, &first.credits, NOW).credits;
    let fresh = plan(&queue, &[], &[], &Limits { jobs: 1, ..LIMITS }, &gone, NOW);
    ensure!(show(&fresh) == "admit 3 max_jobs", "{}", show(&fresh));
    Ok(())
}
