//! `csrc/core`; its small floats are held to the bits of `flyball::number` (`twins.rs`).

use flyball::prng::Prng;
use flyball_simt::core::*;

#[test]
fn a_softmax_of_nothing_is_zero() {
    let empty = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };
    assert_eq!((normalizer(empty), lse(empty)), (0.0, f32::NEG_INFINITY));
    let some = Softmax { max: 5.0, sum: 4.0 };
    assert!((lse(some) - 7.0 * std::f32::consts::LN_2).abs() < 1e-6);
    assert_eq!(normalizer(some), 0.25);
}

/// The known answers that come with Random123, the authors' own implementation.
#[test]
fn philox_gives_its_authors_answers() {
    let cases = [
        ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
        (
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        ),
    ];
    for (counter, key, word) in cases {
        assert_eq!(philox(Random4 { word: counter }, key[0], key[1]), Random4 { word });
    }
    assert!(uniform(0) > 0.0 && uniform(u32::MAX) < 1.0);
}

#[test]
fn rope_turns_by_the_right_angle_however_far() {
    let plain = RopeScaling {
        factor: 1.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192.0,
    };
    let llama = RopeScaling { factor: 8.0, ..plain };
    for (scaling, theta) in [(plain, 1e4), (llama, 5e5)] {
        for pair in 0..64 {
            let mut frequency = f64::powf(theta, -f64::from(pair) / 64.0);
            // As in Meta's reference: by wavelength.
            let wavelength = std::f64::consts::TAU / frequency;
            if scaling.factor != 1.0 && wavelength > 8192.0 {
                frequency /= 8.0;
            } else if scaling.factor != 1.0 && wavelength > 2048.0 {
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                frequency *= (1.0 - smooth) / 8.0 + smooth;
            }
            let turns = rope_turns(pair, 128, theta, scaling);
            for position in [0, 1, 4095, 131_071, 1_000_000] {
                let angle = frequency * f64::from(position);
                let rotation = rotation(turns, position);
                let off = (f64::from(rotation.cosine) - angle.cos()).abs()
                    + (f64::from(rotation.sine) - angle.sin()).abs();
                assert!(off < 5e-7, "pair {pair} at {position}: off by {off}");
            }
        }
    }
}

#[test]
fn a_chunk_after_a_prefix_sees_up_to_itself() {
    for (prefix, chunk) in [(0, 1), (0, 5), (7, 1), (7, 16), (100, 3)] {
        for query in 0..chunk {
            assert_eq!(visible_keys(query, chunk, prefix + chunk), prefix + query + 1);
        }
    }
    assert_eq!((visible_keys(0, 5, 3), visible_keys(4, 5, 3), visible_keys(0, 1, 0)), (0, 3, 0));
}

#[test]
fn chunks_tile_every_row_at_fixed_multiples() {
    let mut prng = Prng::new(5);
    for _ in 0..500 {
        let chunk = 64 * prng.between(1, 8) as u32;
        let lengths: Vec<u32> = (0..prng.between(1, 40)).map(|_| prng.below(3000) as u32).collect();
        let mut from = Vec::new();
        let mut items = 0;
        for length in &lengths {
            from.push(items);
            items += chunk_count(*length, chunk);
        }
        let mut covered = vec![0; lengths.len()];
        for item in 0..items {
            let row = row_of(item, &from);
            let span = chunk_span(item - from[row], lengths[row], chunk);
            assert_eq!((span.begin, span.begin % chunk), (covered[row], 0));
            assert!(span.end - span.begin <= chunk);
            covered[row] = span.end;
        }
        assert_eq!(covered, lengths);
    }
}
