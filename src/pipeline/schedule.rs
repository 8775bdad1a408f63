//! The noise levels of a run.
//!
//! Reference: diffusers `FlowMatchEulerDiscreteScheduler` with dynamic shifting, and
//! `calculate_shift` of its Flux pipelines: the shift grows with the number of *target* tokens, and
//! is not clamped.

use crate::model::{LoadError, weights::ConfigFile};

/// The scheduler's constants, named as in scheduler_config.json.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    base_image_seq_len: f64,
    max_image_seq_len: f64,
    base_shift: f64,
    max_shift: f64,
    /// The constant shift of models without dynamic shifting (schnell).
    shift: f64,
    use_dynamic_shifting: bool,
}

impl Schedule {
    pub(super) fn read(file: &ConfigFile) -> Result<Self, LoadError> {
        file.must_be("_class_name", &["FlowMatchEulerDiscreteScheduler"])?;
        file.must_be("time_shift_type", &["exponential"])?;
        for flag in [
            "invert_sigmas",
            "stochastic_sampling",
            "use_beta_sigmas",
            "use_exponential_sigmas",
            "use_karras_sigmas",
        ] {
            file.must_be(flag, &["false"])?;
        }
        if file.json().get("shift_terminal").is_some_and(|v| !v.is_null()) {
            return Err(file.wrong("field shift_terminal must be null"));
        }
        let schedule = Self {
            base_image_seq_len: file.size_or("base_image_seq_len", 256)? as f64,
            max_image_seq_len: file.size_or("max_image_seq_len", 4096)? as f64,
            base_shift: file.number_or("base_shift", 0.5)?,
            max_shift: file.number_or("max_shift", 1.15)?,
            shift: file.number_or("shift", 1.0)?,
            use_dynamic_shifting: file.flag_or("use_dynamic_shifting", false)?,
        };
        if schedule.max_image_seq_len <= schedule.base_image_seq_len {
            return Err(file.wrong("field max_image_seq_len must be above base_image_seq_len"));
        }
        if schedule.shift <= 0.0 {
            return Err(file.wrong("field shift must be above 0"));
        }
        Ok(schedule)
    }

    /// `steps` + 1 noise levels for a target of `tokens` tokens, from 1 down to 0.
    #[must_use]
    pub(super) fn sigmas(&self, steps: u32, tokens: usize) -> Vec<f32> {
        let slope =
            (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len);
        let mu = self.base_shift + slope * (tokens as f64 - self.base_image_seq_len);
        let n = f64::from(steps);
        let level = |i: u32| {
            let t = 1.0 - f64::from(i) / n; // linspace(1, 1 / n, n)
            let shifted = if self.use_dynamic_shifting {
                mu.exp() / (mu.exp() + (1.0 / t - 1.0))
            } else {
                self.shift * t / (1.0 + (self.shift - 1.0) * t)
            };
            shifted as f32
        };
        (0..steps).map(level).chain([0.0]).collect()
    }
}
