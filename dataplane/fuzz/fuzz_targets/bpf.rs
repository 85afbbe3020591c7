#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ikv_dataplane::arbitrary::bpf(bytes));
