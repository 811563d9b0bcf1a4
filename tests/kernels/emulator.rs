//! The emulator reports what a kernel must not do, and nothing else.

use crate::ORDERS;
use crate::device::only_emulated;
use flyball_simt::params::Probe;
use flyball_simt::{Faults, Kernel, Memory, Order, Variant};

fn probe(name: &str, order: Order) -> Result<(), Faults> {
    let mut buffer = vec![0_u32; 64];
    let mut memory = Memory::new();
    let params = Probe { buffer: memory.write(&mut buffer) };
    Kernel::find(Variant::Probes, name).launch(2, &params, &memory, order)
}

#[test]
fn each_offence_is_reported_in_every_order() {
    if only_emulated("each_offence_is_reported_in_every_order") {
        return;
    }
    let offences = [
        ("read_too_early", "memory that"),
        ("write_too_early", "memory that another thread"),
        ("warp_barrier_across_warps", "memory that"),
        ("unwritten", "nobody wrote"),
        ("shared_overrun", "4 bytes at 256 of 256"),
        ("global_overrun", "write of 4 bytes outside of every buffer"),
        ("global_misaligned", "are not aligned"),
        ("copy_overtaken", "copy was not waited for"),
        ("divergent_barrier", "waits for threads that never come"),
        ("half_a_warp_shuffles", "waits for threads that never come"),
        ("written_before_its_turn", "write before the grid ahead was waited for"),
        ("next_before_its_turn", "lets the next grid begin before"),
    ];
    for order in ORDERS {
        for (name, what) in offences {
            let faults = probe(name, order).expect_err(name);
            assert!(faults.text.contains(what), "{name}, {order:?}: {faults}");
            assert!(faults.text.starts_with(name), "{faults}");
        }
    }
    let probes = Kernel::all(Variant::Probes).map(|k| k.name()).filter(|name| *name != "sound");
    assert!(probes.eq(offences.map(|(name, _)| name)), "every probe is in the list");
}

#[test]
fn what_is_sound_stays_quiet() {
    if only_emulated("what_is_sound_stays_quiet") {
        return;
    }
    for order in ORDERS {
        probe("sound", order).unwrap();
    }
}

#[test]
fn a_buffer_to_be_read_is_not_written() {
    if only_emulated("a_buffer_to_be_read_is_not_written") {
        return;
    }
    let buffer = vec![7_u32; 65];
    let mut memory = Memory::new();
    let params = Probe { buffer: memory.read(&buffer) };
    let kernel = Kernel::find(Variant::Probes, "global_overrun");
    let faults = kernel.launch(1, &params, &memory, Order::Forward).unwrap_err();
    assert!(faults.text.contains("to be read only"), "{faults}");
    assert_eq!(faults.count, 64);
    assert_eq!(buffer, [7; 65]);
}
