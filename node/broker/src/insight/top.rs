//! The most used topics of the last minute: space-saving sketches of ten seconds each. A topic that is used more than one
//! part in [`TOPICS_MAX`] of all messages is never missed; how much too high its count may be is said.

use std::collections::HashMap;

use fulmar_mqtt::TopicName;

/// Topics that are counted at one time, in each slice of time.
pub const TOPICS_MAX: usize = 256;

const SLICES: u64 = 6;
const SLICE_MS: u64 = 10_000;

/// Messages a second that are counted one by one; of more, one in [`ONE_IN`] stands for as many.
pub const COUNTED_A_SECOND: u32 = 1_000;
pub const ONE_IN: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    messages: u64,
    bytes: u64,
    over: u64,
}

/// How a topic was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub topic: String,
    pub messages: u64,
    pub bytes: u64,
    /// By how much `messages` may be too high.
    pub over: u64,
}

#[derive(Debug, Default)]
struct Slice {
    /// Which ten seconds.
    number: u64,
    topics: HashMap<TopicName, Count>,
}

impl Slice {
    fn add(&mut self, topic: &TopicName, messages: u64, bytes: u64) {
        if let Some(count) = self.topics.get_mut(topic) {
            count.messages += messages;
            count.bytes += bytes;
            return;
        }
        let mut count = Count { messages, bytes, over: 0 };
        if self.topics.len() >= TOPICS_MAX {
            let least = self.topics.iter().min_by_key(|(_, count)| count.messages);
            if let Some((least, replaced)) = least.map(|(topic, count)| (topic.clone(), *count)) {
                self.topics.remove(&least);
                count.over = replaced.messages;
                count.messages += replaced.messages;
            }
        }
        self.topics.insert(topic.detached(), count);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Top {
    slices: [Slice; SLICES as usize],
}

impl Top {
    /// Counts messages on a topic. `now_ms`: of a clock that only runs forward.
    pub fn add(&mut self, topic: &TopicName, messages: u64, bytes: u64, now_ms: u64) {
        let number = now_ms / SLICE_MS + 1;
        let Some(slice) = self.slices.get_mut((number % SLICES) as usize) else { return };
        if slice.number != number {
            *slice = Slice { number, topics: HashMap::new() };
        }
        slice.add(topic, messages, bytes);
    }

    /// The most used topics of the last minute, the most messages first.
    #[must_use]
    pub fn read(&self, most: usize, now_ms: u64) -> Vec<Usage> {
        let oldest = (now_ms / SLICE_MS + 1).saturating_sub(SLICES - 1);
        let mut sums: HashMap<&TopicName, Count> = HashMap::new();
        for slice in self.slices.iter().filter(|slice| slice.number >= oldest && slice.number > 0) {
            for (topic, count) in &slice.topics {
                let sum = sums.entry(topic).or_default();
                sum.messages += count.messages;
                sum.bytes += count.bytes;
                sum.over += count.over;
            }
        }
        let usage = |(topic, Count { messages, bytes, over }): (&TopicName, Count)| Usage {
            topic: topic.as_str().to_owned(),
            messages,
            bytes,
            over,
        };
        let used = sums.into_iter().map(usage).collect();
        merged(used, most)
    }
}

/// Sums up what several nodes have counted.
#[must_use]
pub fn merged(used: Vec<Usage>, most: usize) -> Vec<Usage> {
    let mut sums: HashMap<String, Usage> = HashMap::new();
    for usage in used {
        match sums.get_mut(&usage.topic) {
            Some(sum) => {
                sum.messages += usage.messages;
                sum.bytes += usage.bytes;
                sum.over += usage.over;
            }
            None => drop(sums.insert(usage.topic.clone(), usage)),
        }
    }
    let mut sums: Vec<Usage> = sums.into_values().collect();
    sums.sort_unstable_by(|one, other| {
        (other.messages, other.bytes, &one.topic).cmp(&(one.messages, one.bytes, &other.topic))
    });
    sums.truncate(most);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> TopicName {
        TopicName::new(text.to_owned()).expect("a topic")
    }

    #[test]
    fn what_is_used_much_is_found_among_many() {
        let mut top = Top::default();
        for round in 0..5_000u64 {
            top.add(&topic(&format!("rare/{round}")), 1, 10, 1_000);
            if round % 20 == 0 {
                top.add(&topic("much"), 2, 100, 1_000);
            }
        }
        let read = top.read(3, 1_000);
        assert_eq!(read[0].topic, "much");
        let (low, high) = (read[0].messages - read[0].over, read[0].messages);
        assert!(low <= 500 && 500 <= high, "{low}..={high}");
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn a_minute_later_it_is_forgotten() {
        let mut top = Top::default();
        top.add(&topic("a"), 3, 30, 0);
        top.add(&topic("b"), 1, 10, 30_000);
        top.add(&topic("b"), 1, 10, 40_000);
        let names = |now| top.read(9, now).into_iter().map(|usage| (usage.topic, usage.messages)).collect::<Vec<_>>();
        assert_eq!(names(45_000), [("a".to_owned(), 3), ("b".to_owned(), 2)]);
        assert_eq!(names(65_000), [("b".to_owned(), 2)]);
        assert_eq!(names(200_000), []);
    }

    #[test]
    fn nodes_add_up() {
        let usage = |topic: &str, messages| Usage { topic: topic.to_owned(), messages, bytes: messages * 2, over: 1 };
        let sum = merged(vec![usage("a", 2), usage("b", 3), usage("a", 2)], 1);
        assert_eq!(sum, [Usage { topic: "a".to_owned(), messages: 4, bytes: 8, over: 2 }]);
    }
}
