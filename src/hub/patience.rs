//! How often something is tried again, and when.

use super::{Event, HubError, Tell};
use std::time::Duration;

/// Attempts in a row that bring nothing.
const TRIES: u32 = 5;
/// The longest time that a hub may ask to wait, in seconds.
const LONGEST_WAIT: u64 = 300;

/// Counts attempts that failed.
pub(super) struct Patience {
    pause: Duration,
    tries: u32,
}

impl Patience {
    /// With a first pause; each further one is twice as long.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, tries: 0 }
    }

    /// An attempt brought something before it failed.
    pub(super) fn renew(&mut self) {
        self.tries = 0;
    }

    /// Waits until the next attempt.
    ///
    /// # Errors
    /// `error` itself where another attempt would not help or there were enough.
    pub(super) async fn wait(&mut self, error: HubError, tell: Tell<'_>) -> Result<(), HubError> {
        let pause = match &error {
            HubError::Busy { seconds, .. } if *seconds <= LONGEST_WAIT => {
                Duration::from_secs(*seconds)
            }
            error if error.passes() => self.pause * (1 << self.tries),
            _ => return Err(error),
        };
        self.tries += 1;
        if self.tries >= TRIES {
            return Err(error);
        }
        tell(Event::Wait { seconds: pause.as_secs(), reason: &error.to_string() });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// As [`Patience::wait`].
    pub(super) async fn ask<T>(
        mut self,
        tell: Tell<'_>,
        mut ask: impl AsyncFnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait(error, tell).await?,
            }
        }
    }
}
