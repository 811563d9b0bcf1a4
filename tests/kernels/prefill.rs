//! Attention of new tokens over the paged cache: plan and tiles, as an executor runs them.

use crate::ORDERS;
use crate::device::params::{Pool, Prefill};
use crate::device::{Kernel, Memory, Variant};

/// What the plan makes of rows of (new tokens, cached tokens), with `padding` tokens behind them.
struct Planned {
    tile_from: Vec<u32>,
    /// Row, tile of the row, the row's first token and its tokens; `u32::MAX` where nothing was written.
    tiles: Vec<[u32; 4]>,
    count: u32,
    overflow: u32,
}

fn planned(rows: &[(u32, u32)], padding: u32, group: u32, tile: u32, tiles_max: u32) -> Vec<Planned> {
    let mut q_from = vec![0_u32];
    rows.iter().for_each(|(new, _)| q_from.push(q_from.last().unwrap() + new));
    let lengths: Vec<u32> = rows.iter().map(|(_, length)| *length).collect();
    let plan = |order| {
        let mut tile_from = vec![u32::MAX; rows.len() + 2];
        let mut tiles = vec![u32::MAX; tiles_max as usize * 4];
        let (mut tile_count, mut overflow) = ([u32::MAX], [u32::MAX]);
        let mut memory = Memory::new();
        let params = Prefill {
            pool: Pool { heads_kv: 2, ..Pool::default() },
            q_from: memory.read(&q_from),
            lengths: memory.read(&lengths),
            tile_from: memory.write(&mut tile_from),
            tiles: memory.write(&mut tiles),
            tile_count: memory.write(&mut tile_count),
            overflow: memory.write(&mut overflow),
            rows: rows.len() as u32,
            tokens: q_from.last().unwrap() + padding,
            heads_q: 2 * group,
            tile,
            tiles_max,
            ..Prefill::default()
        };
        Kernel::find(Variant::Real, "prefill_plan").launch(1, &params, &memory, order).unwrap();
        let tiles = tiles.chunks(4).map(|t| t.try_into().unwrap()).collect();
        Planned { tile_from, tiles, count: tile_count[0], overflow: overflow[0] }
    };
    ORDERS.map(plan).into()
}

/// How many keys the last token of a tile sees.
fn keys(rows: &[(u32, u32)], tile: [u32; 4], group: u32, packed: u32) -> u32 {
    let Some((new, length)) = rows.get(tile[0] as usize) else { return 0 };
    let last = ((tile[1] + 1) * packed).min(new * group) - 1;
    (length + last / group + 1).saturating_sub(*new)
}

#[test]
fn the_plan_lists_every_tile_once_and_the_longest_first() {
    let many: Vec<(u32, u32)> = (0..300).map(|at| (at % 3, at)).collect();
    let cases: [&[(u32, u32)]; 6] = [
        &[],
        &[(0, 0)],
        &[(1, 1)],
        &[(5, 5), (0, 700), (300, 4000), (64, 64), (40, 20)],
        &[(4096, 4096)],
        &many,
    ];
    for rows in cases {
        for (group, tile, padding) in [(1, 64, 0), (4, 128, 0), (7, 64, 1), (3, 128, 200)] {
            let tokens = |row: usize| rows.get(row).map_or(padding, |(new, _)| *new);
            let want: Vec<[u32; 4]> = (0..=rows.len())
                .flat_map(|row| {
                    let first = (0..row).map(tokens).sum();
                    let tiles = (tokens(row) * group).div_ceil(tile);
                    (0..tiles).map(move |at| [row as u32, at, first, tokens(row)])
                })
                .collect();
            for plan in planned(rows, padding, group, tile, want.len() as u32 + 3) {
                assert_eq!((plan.count, plan.overflow), (want.len() as u32, 0));
                let (listed, rest) = plan.tiles.split_at(want.len());
                assert!(rest.iter().all(|t| *t == [u32::MAX; 4]));
                let mut sorted = listed.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, want);
                for pair in listed.windows(2) {
                    let [before, after] = [pair[0], pair[1]].map(|t| keys(rows, t, group, tile));
                    assert!(f64::from(after) <= 1.125 * f64::from(before), "{after} keys after {before}");
                }
                for (row, from) in plan.tile_from.iter().enumerate() {
                    let before = want.iter().filter(|t| (t[0] as usize) < row).count();
                    assert_eq!(*from as usize, before, "before row {row}");
                }
            }
        }
    }
}

#[test]
fn a_plan_of_too_many_tiles_lists_none_and_says_so() {
    for plan in planned(&[(100, 100), (3, 50)], 9, 2, 64, 5) {
        assert_eq!((plan.count, plan.overflow), (0, 1), "4 + 1 + 1 tiles");
        assert_eq!(plan.tile_from, [0; 4]);
        assert!(plan.tiles.iter().all(|t| *t == [u32::MAX; 4]));
    }
}
