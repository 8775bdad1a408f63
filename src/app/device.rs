//! Which device computes, and in which precision.

use super::{AppError, machine};
use crate::{
    config::{ModelSettings, Settings},
    domain::ParamError,
    model::{ops::give_back_large_buffers, weights::Target},
    pipeline::Room,
};
use candle_core::{DType, Device};
use std::str::FromStr;

/// Bytes of a device that does not tell.
const UNKNOWN: u64 = 16 << 30;

/// A device as a person names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DeviceChoice {
    /// A GPU where this build supports one and it is there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    /// The Metal device of a Mac.
    Metal,
}

/// The type of computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with the range of 32.
    Bf16,
    /// 16-bit floats.
    F16,
    /// 8-bit integers for activations and quantised weights, 32-bit floats for the rest.
    Int8,
}

impl FromStr for DeviceChoice {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        let wrong = || ParamError::new("device", text, "expected auto, cpu, cuda:N or metal");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            other => {
                let number = other.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                number.map(Self::Cuda).ok_or_else(wrong)
            }
        }
    }
}

impl FromStr for Precision {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            other => Err(ParamError::new("dtype", other, "expected f32, bf16, f16 or int8")),
        }
    }
}

/// A device that was opened, and the precision on it.
#[derive(Clone, Debug)]
pub struct Compute {
    pub(super) target: Target,
    name: String,
}

impl Compute {
    /// Opens the device. Without a `precision` a CPU computes in f32 and a GPU in bf16.
    ///
    /// # Errors
    /// [`AppError::Device`] where this build does not support it, it is not there, or it cannot
    /// compute in that precision.
    fn open(choice: DeviceChoice, precision: Option<Precision>) -> Result<Self, AppError> {
        // Before there are any: what a plan predicts is what buffers take.
        give_back_large_buffers();
        let (device, name) = match choice {
            DeviceChoice::Cpu => (Device::Cpu, "cpu".to_owned()),
            DeviceChoice::Cuda(n) => (cuda(n)?, format!("cuda:{n}")),
            DeviceChoice::Metal => (metal()?, "metal".to_owned()),
            DeviceChoice::Auto => cuda(0)
                .map(|device| (device, "cuda:0".to_owned()))
                .or_else(|_| metal().map(|device| (device, "metal".to_owned())))
                .unwrap_or((Device::Cpu, "cpu".to_owned())),
        };
        let dtype = match precision {
            Some(Precision::Int8) if !device.is_cpu() => {
                let reason = "int8 is for a CPU: a GPU computes in f32, bf16 or f16".to_owned();
                return Err(AppError::Device { device: name, reason });
            }
            Some(Precision::F32 | Precision::Int8) => DType::F32,
            Some(Precision::Bf16) => DType::BF16,
            Some(Precision::F16) => DType::F16,
            None if device.is_cpu() => DType::F32,
            None => DType::BF16,
        };
        if device.is_cpu() && dtype != DType::F32 {
            let reason = format!("a CPU computes in f32 or int8, not in {}", dtype.as_str());
            return Err(AppError::Device { device: name, reason });
        }
        let in_bytes = precision == Some(Precision::Int8);
        Ok(Self { target: Target { in_bytes, ..Target::new(device, dtype) }, name })
    }
}

impl Compute {
    /// Opens the device that the settings name, the first of several.
    ///
    /// # Errors
    /// As [`Compute::open`].
    pub fn of(settings: &ModelSettings) -> Result<Self, AppError> {
        let device = settings.devices.first().map_or("auto", String::as_str);
        Self::named(device, &settings.dtype)
    }

    /// Opens every device that the settings name.
    ///
    /// # Errors
    /// As [`Compute::open`].
    pub(super) fn all(settings: &ModelSettings) -> Result<Vec<Self>, AppError> {
        settings.devices.iter().map(|device| Self::named(device, &settings.dtype)).collect()
    }

    fn named(device: &str, dtype: &str) -> Result<Self, AppError> {
        let precision = if dtype == "auto" { None } else { Some(dtype.parse()?) };
        Self::open(device.parse()?, precision)
    }

    /// The memory that one of `engines` engines on this device can have.
    pub(super) fn room(&self, settings: &Settings, engines: usize) -> Room {
        let (total, free) = self.memory().unwrap_or((UNKNOWN, UNKNOWN));
        let jobs = settings.scheduler.memory;
        let room = Room { total, free, budget: settings.memory.budget, jobs };
        // Several on a CPU share it; of GPUs each has its own.
        if self.target.device.is_cpu() { room.split(engines as u64) } else { room }
    }

    /// Bytes that the device has, and of them those that are free, where it tells.
    fn memory(&self) -> Option<(u64, u64)> {
        match &self.target.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
                Some((total as u64, free as u64))
            }
            Device::Cpu => machine::memory(),
            _ => None,
        }
    }

    /// The device's name.
    pub(super) fn device(&self) -> &str {
        &self.name
    }

    /// The name of the type of computation.
    pub(super) fn precision(&self) -> &'static str {
        if self.target.in_bytes { "int8" } else { self.target.dtype.as_str() }
    }
}

impl std::fmt::Display for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.name, self.precision())
    }
}

fn cuda(number: usize) -> Result<Device, AppError> {
    open(format!("cuda:{number}"), cfg!(feature = "cuda"), || Device::new_cuda(number))
}

fn metal() -> Result<Device, AppError> {
    open("metal".to_owned(), cfg!(feature = "metal"), || Device::new_metal(0))
}

fn open(
    device: String,
    built: bool,
    open: impl FnOnce() -> candle_core::Result<Device>,
) -> Result<Device, AppError> {
    if !built {
        let feature = device.split(':').next().unwrap_or(&device);
        let reason = format!("this build has no support for it: build with --features {feature}");
        return Err(AppError::Device { device, reason });
    }
    open().map_err(|error| {
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        AppError::Device { device, reason }
    })
}
