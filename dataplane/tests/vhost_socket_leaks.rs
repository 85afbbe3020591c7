//! Alone in its process: it counts the process's descriptors and mappings.
#![allow(missing_docs, clippy::unwrap_used)]

mod front_end;

use std::os::fd::AsFd;

use front_end::*;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:guest"))
        .count()
}

#[test]
fn a_hundred_sessions_leave_nothing_behind() {
    let bench = bench();
    let before = descriptors();
    for session in 0..100 {
        let guest = Guest::new();
        let mut front = bench.connect();
        match session % 5 {
            0 => {
                front.bring_up(&guest);
                ping_pong(&bench, &guest, 0);
            }
            1 => {
                front.bring_up(&guest);
                front.stop(1);
                front.share(&guest);
                front.start(&guest, 1, 0);
            }
            // Descriptors with half a message, with too much of one, and with a bad one.
            2 => _ = front.raw(&[8, 0, 0], &[guest.file.as_fd(); 30]).unwrap(),
            3 => _ = front.raw(&[8, 0, 0], &[guest.file.as_fd(); 253]).unwrap(),
            _ => {
                let files = [guest.file.as_fd(); 3];
                front.send(request::SET_MEM_TABLE, &table(&[Guest::REGION; 3]), &files);
            }
        }
    }
    until("as many descriptors as before", || {
        while bench.sockets.event().is_some() {}
        (descriptors() == before).then_some(())
    });
    until("no memory of guests", || (mappings() == 0).then_some(()));
    bench.stop();
}
