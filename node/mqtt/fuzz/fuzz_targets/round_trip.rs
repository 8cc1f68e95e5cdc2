#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_mqtt::fuzz::round_trip(data));
