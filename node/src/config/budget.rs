//! What the bounds of a configuration come to in memory, and what is derived from the memory that there is.

use super::Config;

/// Bytes of a node that holds nothing. This and what follows was measured with `bench sizes`, and rounded up.
const EMPTY: u64 = 48 << 20;

/// Bytes of a connection with its session, a subscription and nothing that waits, in the process and in the kernel; the
/// same over TLS, also under WebSocket.
const CONNECTION: u64 = 16 << 10;
const TLS_CONNECTION: u64 = 32 << 10;

/// Above so much of `limits.replicated_bytes_max` nothing is taken that can be refused.
const REPLICATED_PERCENT: u64 = 80;

/// Messages to devices have a bound that is no key.
const DEVICE_MESSAGES: u64 = 256 << 20;

/// Of the memory, what all bounds together should keep to: above it new connections are refused.
pub const HIGH_PERCENT: u64 = 85;

/// However much the state may take, so much of the memory is left for connections.
const CONNECTIONS_PERCENT: u64 = 25;

/// Fewer connections are never derived: a node that takes none is of no use, and the high-water mark still holds.
const CONNECTIONS_MIN: u64 = 100;

/// What a node may need, in bytes, and how many connections it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub connections_max: u32,
    pub empty: u64,
    /// Queued and retained messages, wills; backlogs; messages to devices.
    pub state: u64,
    /// All connections together, when nothing waits for them.
    pub connections: u64,
    /// What is wrong with it, for the log.
    pub warnings: Vec<String>,
}

impl Budget {
    /// `memory`: bytes that may be used. `descriptors`: files that clients may have open. A configuration that cannot fit is
    /// warned of and no error: its bounds may never be reached.
    #[must_use]
    pub fn of(config: &Config, memory: u64, descriptors: u64) -> Budget {
        let limits = &config.limits;
        let each = if config.listener.iter().any(|one| one.tls.is_some()) { TLS_CONNECTION } else { CONNECTION };
        let replicated = limits.replicated_bytes_max.get() / 100 * REPLICATED_PERCENT;
        let backlogs = limits.rule_backlog_bytes_max.get();
        let state = replicated.saturating_add(backlogs).saturating_add(DEVICE_MESSAGES);
        let usable = memory / 100 * HIGH_PERCENT;
        let left = usable.saturating_sub(EMPTY).saturating_sub(state);
        let fits = (left.max(memory / 100 * CONNECTIONS_PERCENT) / each).max(CONNECTIONS_MIN);
        let wanted = u64::from(limits.connections_max);
        let mut warnings = Vec::new();
        if wanted > descriptors {
            warnings.push(format!(
                "limits.connections_max is {wanted}, but the limit on open files leaves room for {descriptors} clients: \
                 that many are taken; raise the limit (ulimit -n, LimitNOFILE) or lower the key"
            ));
        }
        let connections_max = if wanted == 0 { fits.min(descriptors) } else { wanted.min(descriptors) };
        let connections = connections_max.saturating_mul(each);
        let needs = EMPTY.saturating_add(state).saturating_add(connections);
        if needs > usable {
            warnings.push(format!(
                "the bounds allow more than the memory holds: {} MiB, of which {} MiB are for limits.replicated_bytes_max \
                 ({REPLICATED_PERCENT} % of {}), {} MiB for limits.rule_backlog_bytes_max, {} MiB for messages to devices, \
                 {} MiB for {connections_max} connections (limits.connections_max), {} MiB for the rest; {HIGH_PERCENT} % of the \
                 memory are {} MiB: lower the keys, or give the node more memory (limits.memory_max tells it of another limit)",
                mib(needs),
                mib(replicated),
                limits.replicated_bytes_max,
                mib(backlogs),
                mib(DEVICE_MESSAGES),
                mib(connections),
                mib(EMPTY),
                mib(usable),
            ));
        }
        let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX);
        Budget { connections_max, empty: EMPTY, state, connections, warnings }
    }
}

/// Rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn config(text: &str) -> Config {
        Config::from_toml_str(text).unwrap()
    }

    #[test]
    fn connections_are_what_descriptors_and_memory_allow() {
        let tls = "[[listener]]\naddress = \"127.0.0.1:8883\"\ntls = { cert = \"c\", key = \"k\" }\n";
        for (text, memory, descriptors, connections_max) in [
            ("", 64 * GIB, 19_744, 19_744),
            ("", 8 * GIB, 1 << 20, 357_375),
            (tls, 8 * GIB, 1 << 20, 178_687),
            // However large the state may grow, a quarter is theirs.
            ("", GIB, 1 << 20, 16_383),
            ("[limits]\nreplicated_bytes_max = \"64MiB\"\nrule_backlog_bytes_max = \"16MiB\"", GIB, 1 << 20, 31_948),
            ("", 1 << 20, 1 << 20, 100),
            ("[limits]\nconnections_max = 500", GIB, 1 << 20, 500),
            ("[limits]\nconnections_max = 500", 64 * GIB, 200, 200),
        ] {
            let budget = Budget::of(&config(text), memory, descriptors);
            assert_eq!(budget.connections_max, connections_max, "{text} {memory} {descriptors}");
        }
    }

    #[test]
    fn what_cannot_fit_is_said_with_keys_and_numbers() {
        assert_eq!(Budget::of(&Config::default(), 64 * GIB, 10_000).warnings, Vec::<String>::new());
        let small = Budget::of(&config("[limits]\nreplicated_bytes_max = \"2GiB\""), GIB, 10_000).warnings;
        let [warning] = &small[..] else { panic!("{small:?}") };
        for part in
            ["limits.replicated_bytes_max (80 % of 2GiB)", "1639 MiB", "limits.rule_backlog_bytes_max", "871 MiB"]
        {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        let few = Budget::of(&config("[limits]\nconnections_max = 5000"), 64 * GIB, 1_000).warnings;
        let [warning] = &few[..] else { panic!("{few:?}") };
        assert!(warning.contains("limits.connections_max is 5000") && warning.contains("room for 1000"), "{warning}");
    }
}
