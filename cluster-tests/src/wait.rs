//! Waiting for facts. A test names what it waits for and how long; it never sleeps and hopes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks at a fact.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `fact` again and again until it answers `Some`. Between two looks other tasks run.
///
/// # Errors
/// Names `what` did not come true within `deadline`. A look that hangs is cut off there too.
pub async fn wait_for<T>(what: &str, deadline: Duration, mut fact: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(POLL_INTERVAL), fact()).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() < end => tokio::time::sleep(POLL_INTERVAL).await,
            _ => bail!("waited {deadline:?} in vain for: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fact_is_awaited_and_its_absence_is_named() {
        let mut looks = 0;
        let value = wait_for("third look", Duration::from_secs(5), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(value.await.unwrap(), 3);

        let never = wait_for("the moon", Duration::from_millis(30), async || None::<()>).await.unwrap_err();
        assert!(never.to_string().contains("the moon"), "{never}");
        let hangs = wait_for("a hang", Duration::from_millis(30), std::future::pending::<Option<()>>).await;
        assert!(hangs.unwrap_err().to_string().contains("a hang"));
    }
}
