//! What a page of a heap belongs to, told from an image: a part of the heap's own tables, a block or
//! global of the program, a root or its container, a block of the allocator, or nothing.
//!
//! Invariant: what is read comes through `Stored`, which hands out nothing that is damaged; where the
//! tables that would tell are damaged too, that is the answer. Names are an addition: when they cannot be
//! read, the block is told without.

const std = @import("std");
const blocks = @import("blocks.zig");
const classes = @import("../alloc/classes.zig");
const errors = @import("../errors.zig");
const header_room = @import("header.zig");
const layout = @import("../alloc/layout.zig");
const os = @import("../os/os.zig");
const parts = @import("../data/parts.zig");
const stored_ = @import("../image/stored.zig");
const text = @import("../data/text.zig");
const Damaged = stored_.Damaged;
const Stored = stored_.Stored;
const Target = parts.Target;

const page_size = os.page_size;
/// Of names that are told.
const name_len_max = 64;
/// Of an object that is searched for containers.
const searched_len_max = 64 * 1024;
/// Where TypeScript's roots begin, and what one looks like (data/roots.ts).
const roots_name = "@perm/heap/data";
const Roots = extern struct { version: u32, reserved: u32, first: u64 };
const Root = extern struct { name: text.Slot, schema: text.Slot, hash: u64, object: u64, next: u64 };
const roots_max = 1 << 16;

/// An image's `Describer`.
pub fn describe(stored: *Stored, page: u64, buffer: []u8) []const u8 {
    var belongs: Belongs = .{ .stored = stored, .buffer = buffer, .address = stored.identity.address };
    return belongs.tell(page * page_size) catch
        belongs.say("something unknown: the allocator's tables, which would tell, are damaged too", .{});
}

const Belongs = struct {
    stored: *Stored,
    buffer: []u8,
    address: u64,
    geometry: layout.Geometry = undefined,
    high: u32 = 0,
    name_buffer: [name_len_max]u8 = undefined,
    line_buffer: [name_len_max + 64]u8 = undefined,

    fn say(self: *Belongs, comptime format: []const u8, args: anytype) []const u8 {
        return errors.phrase(self.buffer, format, args);
    }

    fn tell(self: *Belongs, offset: u64) Damaged![]const u8 {
        if (offset < layout.header_offset) return self.say("the heap's header", .{});
        if (offset < layout.table_offset) return self.say("the allocator's header", .{});
        self.geometry = layout.Geometry.init(self.stored.identity.max_size) catch return error.Damaged;
        const geometry = self.geometry;
        if (offset < geometry.remote_offset) {
            const last = (offset - layout.table_offset + page_size - 1) / layout.Slice.stride;
            return self.ofTable("slice table", (offset - layout.table_offset) / layout.Slice.stride, last);
        }
        const remote = @sizeOf(layout.Remote);
        if (offset < geometry.remote_offset + @as(u64, geometry.slices) * remote) {
            const first = (offset - geometry.remote_offset) / remote;
            return self.ofTable("table of blocks that other threads freed", first, first + page_size / remote - 1);
        }
        if (offset < geometry.data_offset) return self.say("nothing: no part of the heap lies there", .{});
        self.high = (try self.stored.value(layout.Header, self.address + layout.header_offset)).high;
        const slice: u64 = (offset - geometry.data_offset) >> layout.slice_shift;
        if (slice >= @min(self.high, geometry.slices)) return self.say("memory that was never used", .{});
        const unit = try self.unitOf(@intCast(slice));
        return switch (unit.kind) {
            layout.kind.free => self.say("free memory", .{}),
            layout.kind.large => self.ofBlock(unit.start, unit.len),
            else => self.ofSpan(&unit, self.address + offset),
        };
    }

    fn ofTable(self: *Belongs, comptime what: []const u8, first: u64, last: u64) []const u8 {
        const data = self.address + self.geometry.data_offset;
        // The type is named, for that of @min is as narrow as its narrowest operand.
        const end: u64 = @min(last + 1, self.geometry.slices);
        return self.say("the allocator's " ++ what ++ ", where it tells of 0x{x} to 0x{x}", .{
            data + (first << layout.slice_shift),
            data + (end << layout.slice_shift),
        });
    }

    /// A span, large block or free run.
    const Unit = struct { kind: u8, class: u8, first: u32, start: u64, len: u64 };

    fn line(self: *Belongs, slice: u32) Damaged!layout.Slice {
        return self.stored.value(layout.Slice, self.lineAddress(slice));
    }

    fn lineAddress(self: *const Belongs, slice: u32) u64 {
        return self.address + layout.table_offset + @as(u64, slice) * layout.Slice.stride;
    }

    fn unitOf(self: *Belongs, slice: u32) Damaged!Unit {
        var first = slice;
        while (true) : (first -= 1) {
            switch (try self.stored.value(u8, self.lineAddress(first) + @offsetOf(layout.Slice, "kind"))) {
                layout.kind.small, layout.kind.large, layout.kind.free => break,
                else => if (first == 0) return error.Damaged,
            }
        }
        const found = try self.line(first);
        if (found.kind == layout.kind.small and found.class >= classes.count) return error.Damaged;
        const slices = if (found.kind == layout.kind.small) classes.table[found.class].slices else found.slices;
        if (slice - first >= slices) return error.Damaged;
        return .{
            .kind = found.kind,
            .class = found.class,
            .first = first,
            .start = self.address + self.geometry.data_offset + (@as(u64, first) << layout.slice_shift),
            .len = @as(u64, slices) << layout.slice_shift,
        };
    }

    fn ofBlock(self: *Belongs, start: u64, len: u64) []const u8 {
        if (self.nameOf(.{ .from = start, .to = start + len })) |name| {
            return self.say("{s}, in a block of {d} bytes at 0x{x}", .{ name, len, start });
        }
        return self.say("a block of {d} bytes at 0x{x}", .{ len, start });
    }

    fn ofSpan(self: *Belongs, unit: *const Unit, page: u64) Damaged![]const u8 {
        const shape = &classes.table[unit.class];
        const first = (page - unit.start) / shape.size;
        const end = @min(shape.blocks, (page + page_size - unit.start + shape.size - 1) / shape.size);
        const span = try self.line(unit.first);
        var live: u64 = 0;
        var alone: u64 = 0;
        var name: ?[]const u8 = null;
        var index = first;
        while (index < end) : (index += 1) {
            const word: u6 = @intCast(index / 64);
            var bits = span.words[word];
            if (span.remote_words >> word & 1 == 1) {
                const remote = self.address + self.geometry.remote_offset + @as(u64, unit.first) * @sizeOf(layout.Remote);
                bits &= ~try self.stored.value(u64, remote + @as(u64, word) * 8);
            }
            if (bits >> @intCast(index % 64) & 1 == 0) continue;
            live += 1;
            const start = unit.start + index * shape.size;
            if (live == 1) alone = start;
            if (name == null) {
                name = self.nameOf(.{ .from = start, .to = start + shape.size });
                if (name != null) alone = start;
            }
        }
        if (live == 0) return self.say("free places for blocks of {d} bytes", .{shape.size});
        if (name) |known| {
            if (live == 1) return self.say("{s}, in a block of {d} bytes at 0x{x}", .{ known, shape.size, alone });
            return self.say("{s}, in a block of {d} bytes at 0x{x}, and to {d} more blocks of that size", .{ known, shape.size, alone, live - 1 });
        }
        if (live == 1) return self.say("a block of {d} bytes at 0x{x}", .{ shape.size, alone });
        return self.say("{d} blocks of {d} bytes, the first at 0x{x}", .{ live, shape.size, alone });
    }

    // ---- names

    /// What is known by name and begins in the target: null when nothing is.
    fn nameOf(self: *Belongs, target: Target) ?[]const u8 {
        return self.findName(target) catch null;
    }

    fn findName(self: *Belongs, target: Target) Damaged!?[]const u8 {
        const header = try self.stored.value(header_room.Header, self.address);
        if (header.directory == 0) return null;
        if (target.has(header.directory)) return "the table of blocks' names";
        var roots: ?u64 = null;
        var steps: u64 = 0;
        for (0..blocks.bucket_count) |bucket| {
            var at = try self.stored.value(u64, header.directory + bucket * 8);
            while (at != 0) : (steps += 1) {
                if (target.has(at)) return "an entry of the table of blocks' names";
                if (steps > header.block_count) break;
                // One that is damaged hides those behind it in its bucket, and no others.
                const entry = self.stored.value(blocks.Entry, at) catch break;
                const name_at = at + @sizeOf(blocks.Entry);
                at = entry.next;
                if (self.isRoots(name_at, entry.name_len)) roots = entry.data;
                if (target.has(entry.data)) {
                    return self.named(if (entry.kind == .block) "block" else "global", name_at, entry.name_len, null);
                }
                if (parts.holder(self.stored, entry.data, @min(entry.size, searched_len_max), target)) |kind| {
                    return self.named("global", name_at, entry.name_len, kind);
                }
            }
        }
        const first = (try self.stored.value(Roots, roots orelse return null)).first;
        return self.findRoot(first, target);
    }

    fn isRoots(self: *Belongs, address: u64, len: u32) bool {
        if (len != roots_name.len) return false;
        const name = self.stored.value([roots_name.len]u8, address) catch return false;
        return std.mem.eql(u8, &name, roots_name);
    }

    fn findRoot(self: *Belongs, first: u64, target: Target) Damaged!?[]const u8 {
        var at = first;
        for (0..roots_max) |_| {
            if (at == 0) return null;
            if (target.has(at)) return "an entry of the table of roots";
            const root = try self.stored.value(Root, at);
            const inline_name = root.name.isInline();
            const name_at = if (inline_name) at else root.name.low;
            const name_len: u32 = if (inline_name) @intCast(root.name.high >> 56) else @truncate(root.name.high);
            if (target.has(root.object)) return self.named("root", name_at, name_len, null);
            if (!inline_name and target.has(name_at) or root.schema.isOutside() and target.has(root.schema.low)) {
                return "an entry of the table of roots";
            }
            if (parts.holder(self.stored, root.object, self.lenAt(root.object), target)) |kind| {
                return self.named("root", name_at, name_len, kind);
            }
            at = root.next;
        }
        return null;
    }

    /// Bytes from an address to the end of its block, as far as they are searched.
    fn lenAt(self: *Belongs, address: u64) u64 {
        const offset = address -% self.address -% self.geometry.data_offset;
        const slice = offset >> layout.slice_shift;
        if (slice >= @min(self.high, self.geometry.slices)) return 0;
        const unit = self.unitOf(@intCast(slice)) catch return 0;
        const end = if (unit.kind == layout.kind.small)
            unit.start + ((address - unit.start) / classes.table[unit.class].size + 1) * classes.table[unit.class].size
        else
            unit.start + unit.len;
        return @min(end - address, searched_len_max);
    }

    /// `global "words"`, or `the HashMap of global "words"`.
    fn named(self: *Belongs, what: []const u8, at: u64, len: u32, container: ?[]const u8) []const u8 {
        const shown: usize = @min(len, name_len_max);
        const name = self.name_buffer[0..shown];
        self.stored.bytes(at, name) catch return errors.phrase(&self.line_buffer, "{s} whose name is damaged too", .{what});
        // A stranger wrote it: it may be anything.
        if (!std.unicode.utf8ValidateSlice(name)) for (name) |*byte| {
            if (byte.* < ' ' or byte.* > '~') byte.* = '?';
        };
        const more = if (shown < len) "..." else "";
        const into = &self.line_buffer;
        if (container) |kind| return errors.phrase(into, "the {s} of {s} \"{s}{s}\"", .{ kind, what, name, more });
        return errors.phrase(into, "{s} \"{s}{s}\"", .{ what, name, more });
    }
};

test "pages that no image stores are told as what they are, and so is everything a stranger wrote" {
    const heap_room = @import("heap.zig");
    const image_room = @import("../image/image.zig");
    const generation_ = @import("../image/generation.zig");
    const testing = std.testing;
    var place = @import("test.zig").Place.init();
    defer place.deinit();
    const path = place.path("a");
    const heap = try heap_room.Heap.mopen(.{ .path = path, .size = 4 << 20, .max_size = 16 << 20 });
    const block = try heap.alloc.malloc(200_000);
    const after = try heap.alloc.malloc(70_000);
    @memset(@as([*]u8, @ptrFromInt(block))[0..200_000], 1);
    @memset(@as([*]u8, @ptrFromInt(after))[0..70_000], 1);
    try heap.alloc.free(block);
    _ = try heap.commit(.map);
    const geometry = heap.geometry;
    const address = heap.address;
    try heap.close();

    const image = try image_room.Image.open(.{ .path = path, .mode = .read });
    defer image.close();
    var stored = try Stored.init(image.disk, image.generation.?, generation_.Point.base, path);
    defer stored.deinit();
    var buffer: [errors.owner_len_max]u8 = undefined;
    const Case = struct { offset: u64, says: []const u8 };
    for ([_]Case{
        .{ .offset = 0, .says = "the heap's header" },
        .{ .offset = geometry.remote_offset, .says = "the allocator's table of blocks that other threads freed, where it tells of 0x" },
        .{ .offset = geometry.data_offset - page_size, .says = "nothing: no part of the heap lies there" },
        .{ .offset = block - address, .says = "free memory" },
        .{ .offset = block - address + 196_608, .says = "free memory" },
        .{ .offset = after - address + 65_536, .says = "a block of 131072 bytes at 0x" },
        .{ .offset = geometry.data_offset + (3 << 20), .says = "memory that was never used" },
        .{ .offset = geometry.span - page_size, .says = "memory that was never used" },
    }) |case| {
        const said = describe(&stored, case.offset / page_size, &buffer);
        try testing.expect(std.mem.startsWith(u8, said, case.says));
    }
    // A short buffer cuts, and whatever the tables say nothing traps.
    try testing.expectEqualStrings("a block", describe(&stored, (after - address) / page_size, buffer[0..7]));
    var prng = std.Random.DefaultPrng.init(1);
    const random = prng.random();
    for (0..2000) |_| {
        // What is held is not read again: this stands for pages that have such bytes and their checksum.
        stored.held = random.uintLessThan(u64, 40);
        random.bytes(stored.buffer[0..]);
        for (0..4) |_| stored.buffer[random.uintLessThan(usize, page_size)] = random.uintLessThan(u8, 6);
        _ = describe(&stored, random.uintLessThan(u64, geometry.span / page_size), &buffer);
    }
}

test "what a page of the allocator's tables tells of is said beyond 4 GiB as well" {
    var buffer: [errors.owner_len_max]u8 = undefined;
    var belongs: Belongs = .{ .stored = undefined, .buffer = &buffer, .address = 0x4123_0000_0000, .geometry = try .init(16 << 30) };
    const data = belongs.address + belongs.geometry.data_offset;
    var expected: [errors.owner_len_max]u8 = undefined;
    try std.testing.expectEqualStrings(
        try std.fmt.bufPrint(&expected, "the allocator's slice table, where it tells of 0x{x} to 0x{x}", .{ data + (5 << 30), data + (6 << 30) }),
        belongs.ofTable("slice table", (5 << 30) >> layout.slice_shift, ((6 << 30) >> layout.slice_shift) - 1),
    );
}
