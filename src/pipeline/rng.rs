//! Noise as torch makes it on a CPU, so that a seed found elsewhere works here.
//!
//! A 32-bit Mersenne twister; `torch.randn` of 16 values or more first fills the buffer with uniforms
//! of 24 random bits each, then turns blocks of 16 into normals by Box-Muller, the first eight
//! against the last eight; where the count is no multiple of 16 the last 16 are drawn anew.
//! (Latents are never fewer than 64 values, so torch's other path for short tensors is not here.)
//!
//! Reference: torch 2.15.0, `torch.randn(n, generator=torch.Generator().manual_seed(seed))`.

const N: usize = 624;
const M: usize = 397;

struct MersenneTwister {
    state: [u32; N],
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn refill(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn draw(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A uniform in 0..1 of 24 random bits.
    fn uniform(&mut self) -> f32 {
        (self.draw() & 0x00ff_ffff) as f32 / 16_777_216.0
    }
}

/// `count` normal values, at least 16: torch draws shorter tensors in another way. Like torch, only the
/// lowest 32 bits of the seed count.
#[must_use]
pub fn randn(seed: u64, count: usize) -> Vec<f32> {
    let mut generator = MersenneTwister::new(seed as u32);
    let mut values: Vec<f32> = (0..count.max(16)).map(|_| generator.uniform()).collect();
    let mut blocks = values.chunks_exact_mut(16);
    blocks.by_ref().for_each(box_muller);
    if !blocks.into_remainder().is_empty() {
        let last = values.len() - 16;
        values[last..].fill_with(|| generator.uniform());
        box_muller(&mut values[last..]);
    }
    values
}

fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let theta = 2.0 * std::f32::consts::PI * *b;
        *a = radius * theta.cos();
        *b = radius * theta.sin();
    }
}
