#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dotfour_fuzz_entries::alias(data);
});
