//! An engine that computes nothing: what tests of everything above the engine drive.
//!
//! Its result is a function of the job alone ([`result`]), so that a mixed-up job shows. It is
//! deterministic: time passes only where it says so, to whoever asked to be told, and it fails only
//! where a [`Fault`] was planned. [`Control`] outlives an engine that was dropped and built again.
//! It must not grow behaviour that a real engine does not have.

use super::{
    Cost, CostModel, Engine, EngineError, Job, JobShape, Phase, Progress, Slot, StepOutcome,
};
use crate::domain::{EditParams, ParamError, Pixels, Size};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How much work a job is, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Units of text work.
    pub text: usize,
    /// Units for each reference picture.
    pub image: usize,
    /// Bytes for each token that text, pictures and decoding need besides.
    pub peak: u64,
    /// Pixels of the result that one unit of decoding makes.
    pub pixels_per_decode: usize,
    /// How long a unit of any of those takes.
    pub unit: Duration,
    /// How long a step takes, apart from its tokens.
    pub step: Duration,
    /// How long a step takes for each token.
    pub token: Duration,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            text: 2,
            image: 2,
            peak: 0,
            pixels_per_decode: 1024,
            unit: Duration::from_millis(10),
            step: Duration::from_millis(20),
            token: Duration::from_micros(100),
        }
    }
}

/// A call of an engine's, with the seeds of its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Engine::admit`].
    Admit(u64),
    /// [`Engine::advance`], before its work.
    Advance(u64),
    /// [`Engine::step`], in the order of slots.
    Step(Vec<u64>),
    /// [`Engine::preview`].
    Preview(u64),
    /// [`Engine::release`] of a job that was there.
    Release(u64),
    /// The engine was dropped with that many jobs in it.
    Drop(usize),
}

/// Where a planned fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In [`Engine::admit`].
    Admit,
    /// In [`Engine::advance`].
    Advance,
    /// In [`Engine::step`], for all of its jobs.
    Step,
    /// In [`Engine::preview`]: a panic, or no picture.
    Preview,
}

/// A planned fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The call.
    pub at: At,
    /// The seed of the job.
    pub seed: u64,
    /// Which of that job's calls of that kind, counted from 1 over all engines.
    pub call: usize,
    /// Whether it panics instead of giving an error.
    pub panics: bool,
}

/// A fault that was planned.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a planned fault in {at:?} {call} of the job with seed {seed}")]
struct Planned {
    at: At,
    seed: u64,
    call: usize,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    faults: Vec<Fault>,
    counts: BTreeMap<(u8, u64), usize>,
}

/// What a test holds of its fake engines: their log and their planned faults.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Mutex<State>>);

impl Control {
    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A planned panic happens outside the lock, and the log is whole after any other.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, call: Call) {
        self.state().calls.push(call);
    }

    /// Counts a call, and fails or panics where that was planned.
    fn check(&self, at: At, seed: u64) -> Result<(), EngineError> {
        let mut state = self.state();
        let count = state.counts.entry((at as u8, seed)).or_default();
        *count += 1;
        let call = *count;
        let hit = |fault: &&Fault| fault.at == at && fault.seed == seed && fault.call == call;
        let Some(fault) = state.faults.iter().find(hit).copied() else { return Ok(()) };
        drop(state);
        let planned = Planned { at, seed, call };
        assert!(!fault.panics, "{planned}");
        Err(EngineError::Compute(Box::new(planned)))
    }
}

/// What a job gives: a picture of the output's size, all bytes of which depend on the seed, the
/// length of the prompt, the steps and every byte of every reference.
#[must_use]
pub fn result(job: &Job) -> Pixels {
    let mut state = mix(job.params.seed ^ mix(job.params.prompt.text().len() as u64));
    state = mix(state ^ u64::from(job.params.num_inference_steps));
    for image in &job.images {
        let start = mix(state ^ u64::from(image.width()));
        state = image.rgb().iter().fold(start, |state, byte| mix(state ^ u64::from(*byte)));
    }
    picture(output(&job.params, job.images.first().map(Pixels::size)), state)
}

fn picture(size: Size, mut state: u64) -> Pixels {
    let bytes = size.width as usize * size.height as usize * 3;
    let rgb = std::iter::repeat_with(|| {
        state = mix(state);
        state as u8
    });
    // The second picture is for a size of 0, which no admitted job has.
    Pixels::new(size.width, size.height, rgb.take(bytes).collect())
        .unwrap_or_else(|| picture(Size::new(1, 1), state))
}

/// The finaliser of splitmix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn output(params: &EditParams, first: Option<Size>) -> Size {
    params.size.or(first).unwrap_or(Size::new(16, 16))
}

fn tokens(size: Size) -> usize {
    size.width.div_ceil(16) as usize * size.height.div_ceil(16) as usize
}

impl CostModel for Work {
    fn cost(&self, job: &JobShape<'_>) -> Result<Cost, ParamError> {
        job.params.validate()?;
        let output = output(job.params, job.images.first().copied());
        let tokens = tokens(output) + job.images.iter().map(|&size| tokens(size)).sum::<usize>();
        Ok(Cost {
            tokens,
            memory: 1000 * tokens as u64,
            peak: self.peak * tokens as u64,
            before: (self.text + self.image * job.images.len()) as u64,
            step: tokens as u64,
            steps: job.params.num_inference_steps,
            after: self.decode_units(output) as u64,
        })
    }
}

impl Work {
    fn decode_units(&self, output: Size) -> usize {
        (output.width as usize * output.height as usize).div_ceil(self.pixels_per_decode.max(1))
    }
}

#[derive(Debug)]
struct Running {
    job: Job,
    tokens: usize,
    units: [Progress; 3],
    steps: usize,
    over: bool,
}

/// The fake.
pub struct FakeEngine {
    work: Work,
    control: Control,
    spend: Box<dyn FnMut(Duration) + Send>,
    jobs: BTreeMap<Slot, Running>,
    next: u64,
}

impl FakeEngine {
    /// An engine that tells `spend` of the time that it would take.
    pub fn new(work: Work, control: Control, spend: impl FnMut(Duration) + Send + 'static) -> Self {
        Self { work, control, spend: Box::new(spend), jobs: BTreeMap::new(), next: 0 }
    }

    /// One unit of a job that is not being denoised.
    fn unit(&mut self, slot: Slot) -> Result<Phase, EngineError> {
        let job = self.jobs.get_mut(&slot).ok_or(EngineError::UnknownSlot(slot))?;
        if job.over {
            return Err(EngineError::WrongPhase { slot, call: "advance" });
        }
        let all_steps = job.steps >= job.job.params.num_inference_steps as usize;
        let open = |units: &Progress| units.done < units.total;
        let (kind, phase): (usize, fn(Progress) -> Phase) = match &job.units {
            [text, ..] if open(text) => (0, Phase::Text),
            [_, image, _] if open(image) => (1, Phase::Images),
            _ if all_steps => (2, Phase::Decoding),
            _ => return Ok(Phase::Ready),
        };
        job.units[kind].done += 1;
        let progress = job.units[kind];
        (self.spend)(self.work.unit);
        let [text, image, decode] = job.units;
        if decode.done >= decode.total {
            job.over = true;
            return Ok(Phase::Done(result(&job.job)));
        }
        if text.done >= text.total && image.done >= image.total && !all_steps {
            return Ok(Phase::Ready);
        }
        Ok(phase(progress))
    }
}

impl fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeEngine").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.control.log(Call::Drop(self.jobs.len()));
    }
}

impl Engine for FakeEngine {
    fn admit(&mut self, job: Job) -> Result<Slot, EngineError> {
        let seed = job.params.seed;
        self.control.log(Call::Admit(seed));
        self.control.check(At::Admit, seed)?;
        let cost = self.cost(&JobShape { params: &job.params, images: &job.sizes() })?;
        let units = [self.work.text, self.work.image * job.images.len(), cost.after as usize];
        let slot = Slot(self.next);
        self.next += 1;
        let units = units.map(|total| Progress { done: 0, total });
        let running = Running { job, tokens: cost.tokens, units, steps: 0, over: false };
        self.jobs.insert(slot, running);
        Ok(slot)
    }

    fn advance(&mut self, slot: Slot, budget: Duration) -> Result<Phase, EngineError> {
        let seed = self.jobs.get(&slot).ok_or(EngineError::UnknownSlot(slot))?.job.params.seed;
        self.control.log(Call::Advance(seed));
        self.control.check(At::Advance, seed)?;
        let mut phase = self.unit(slot)?;
        let mut spent = self.work.unit;
        while spent < budget
            && matches!(phase, Phase::Text(_) | Phase::Images(_) | Phase::Decoding(_))
        {
            let next = self.unit(slot)?;
            let same = std::mem::discriminant(&next) == std::mem::discriminant(&phase);
            phase = next;
            spent += self.work.unit;
            if !same {
                break;
            }
        }
        Ok(phase)
    }

    fn step(&mut self, slots: &[Slot]) -> Vec<StepOutcome> {
        let known = |slot: &&Slot| self.jobs.contains_key(slot);
        let seeds: Vec<u64> =
            slots.iter().filter(known).map(|slot| self.jobs[slot].job.params.seed).collect();
        self.control.log(Call::Step(seeds.clone()));
        let fault = seeds.iter().any(|&seed| self.control.check(At::Step, seed).is_err());
        let mut time = self.work.step;
        let mut outcomes = Vec::new();
        for &slot in slots {
            let result = match self.jobs.get_mut(&slot) {
                None => Err(EngineError::UnknownSlot(slot)),
                Some(_) if fault => Err(EngineError::Compute("a planned fault in a step".into())),
                Some(job) => {
                    let total = job.job.params.num_inference_steps as usize;
                    let ready = job.units[..2].iter().all(|units| units.done >= units.total);
                    if ready && job.steps < total {
                        job.steps += 1;
                        time += self.work.token * u32::try_from(job.tokens).unwrap_or(u32::MAX);
                        Ok(Progress { done: job.steps, total })
                    } else {
                        Err(EngineError::WrongPhase { slot, call: "step" })
                    }
                }
            };
            outcomes.push(StepOutcome { slot, result });
        }
        (self.spend)(time);
        outcomes
    }

    fn preview(&mut self, slot: Slot) -> Option<Pixels> {
        let job = self.jobs.get(&slot)?;
        let seed = job.job.params.seed;
        self.control.log(Call::Preview(seed));
        self.control.check(At::Preview, seed).ok()?;
        let shown = job.steps > 0 && job.units[2].done == 0;
        shown.then(|| picture(Size::new(2, 2), mix(seed ^ job.steps as u64)))
    }

    fn release(&mut self, slot: Slot) {
        if let Some(job) = self.jobs.remove(&slot) {
            self.control.log(Call::Release(job.job.params.seed));
        }
    }

    fn cost_model(&self) -> Arc<dyn CostModel> {
        Arc::new(self.work)
    }
}
