//! A seeded mutator of files: for those who have no fuzzer, and for every run of the tests.

/// What mutations put in place of a number.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 8, 9, 31, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 63, u64::MAX];

/// Numbers that look like chance.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX generator; its high bits are the good ones
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }

    /// Changes `file` in one to four places of its first `head` bytes, mostly.
    pub(crate) fn mutate(&mut self, file: &mut Vec<u8>, head: usize) {
        for _ in 0..=self.below(4) {
            let within = if self.below(8) == 0 { file.len() } else { head.min(file.len()) };
            let at = self.below(within);
            let length = self.below(24).min(file.len() - at);
            match self.below(7) {
                0 => file.truncate(at),
                1 => drop(file.drain(at..at + length)),
                2 => {
                    let piece = file[at..at + length].to_vec();
                    let to = self.below(within);
                    drop(file.splice(to..to, piece));
                }
                3 => {
                    let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                    let size = [1, 4, 8][self.below(3)].min(file.len() - at);
                    file[at..at + size].copy_from_slice(&number[..size]);
                }
                4 => {
                    let digits = NUMBERS[self.below(NUMBERS.len())].to_string();
                    drop(file.splice(at..at + length.min(2), digits.into_bytes()));
                }
                _ if at < file.len() => file[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
    }
}
