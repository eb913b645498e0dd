//! What containers lead to, as an image has it: for telling to whom a page of a heap belongs that is
//! not open. Only what this needs is here; the containers themselves are in the files of their names.
//!
//! Invariant: every address comes through `Stored`, which hands out nothing that is damaged, and every
//! walk ends.

const std = @import("std");
const data = @import("data.zig");
const hash_map = @import("hash_map.zig");
const list = @import("list.zig");
const long_text = @import("long_text.zig");
const ordered_map = @import("ordered_map.zig");
const pool_room = @import("pool.zig");
const text = @import("text.zig");
const vec = @import("vec.zig");
const stored_ = @import("../image/stored.zig");
const Damaged = stored_.Damaged;
const Stored = stored_.Stored;

/// No walk reads more than so many values: a damaged image shall not be read for ever.
const reads_max = 1 << 20;

/// The addresses that are looked for.
pub const Target = struct {
    from: u64,
    to: u64,

    pub fn has(self: Target, address: u64) bool {
        return address >= self.from and address < self.to;
    }
};

/// The first kind of container whose header begins in `[from, from + len)` and which leads to the target;
/// null when none does. Headers stand at multiples of 8.
pub fn holder(stored: *Stored, from: u64, len: u64, target: Target) ?[]const u8 {
    var walk: Walk = .{ .stored = stored, .target = target };
    var at = from;
    while (at + 8 <= from + len) : (at += 8) {
        const shape: data.Shape = @bitCast(walk.value(u64, at) catch continue);
        if (!shape.isOne()) continue;
        // What cannot be read to its end may have led to the target before.
        walk.follow(shape, at) catch {};
        if (walk.found) return data.kindName(shape);
    }
    return null;
}

const Walk = struct {
    stored: *Stored,
    target: Target,
    found: bool = false,
    reads: usize = 0,

    fn value(self: *Walk, comptime T: type, address: u64) Damaged!T {
        self.reads += 1;
        if (self.reads > reads_max) return error.Damaged;
        return self.stored.value(T, address);
    }

    /// Whether a part of the container begins there; such a part is looked at before it is read.
    fn part(self: *Walk, address: u64) Damaged!void {
        if (address == 0 or !self.target.has(address)) return;
        self.found = true;
        return error.Damaged;
    }

    fn follow(self: *Walk, shape: data.Shape, at: u64) Damaged!void {
        switch (shape.kind) {
            .vec => try self.part((try self.value(vec.Header, at)).data),
            .text => try self.part((try self.value(long_text.Header, at)).data),
            .list => {
                var next = (try self.value(list.Header, at)).first;
                while (next != 0) {
                    try self.part(next);
                    next = (try self.value(list.Node, next)).next;
                }
            },
            .hash_map => {
                const header = try self.value(hash_map.Header, at);
                try self.part(header.index);
                try self.pool(&header.pool);
            },
            .ordered_map => {
                const header = try self.value(ordered_map.Header, at);
                try self.pool(&header.pool);
                if (shape.key == .text) {
                    try self.nodes(ordered_map.Tree(text.Slot), header.root, header.height);
                } else try self.nodes(ordered_map.Tree(u64), header.root, header.height);
            },
            _ => {},
        }
    }

    fn pool(self: *Walk, from: *const pool_room.Pool) Damaged!void {
        if (from.directory == 0) return;
        try self.part(from.directory);
        for (0..from.directory_len) |index| {
            try self.part((try self.value(pool_room.Segment, from.directory + index * @sizeOf(pool_room.Segment))).address);
        }
    }

    fn nodes(self: *Walk, comptime Tree: type, address: u64, height: u32) Damaged!void {
        if (address == 0) return;
        try self.part(address);
        if (height == 0) return;
        if (height > ordered_map.height_max) return error.Damaged;
        const count = try self.value(u32, address + @offsetOf(Tree.Inner, "count"));
        if (count > Tree.inner_max) return error.Damaged;
        for (0..count + 1) |child| {
            const next = try self.value(u64, address + @offsetOf(Tree.Inner, "children") + child * 8);
            self.nodes(Tree, next, height - 1) catch |err| if (self.found or self.reads > reads_max) return err;
        }
    }
};
