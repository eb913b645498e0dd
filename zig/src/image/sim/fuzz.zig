//! The opener fed with what nobody wrote: noise, and whole images changed field by field with their
//! checksums made right again, so that what lies behind the checksums is reached too.
//!
//! Invariant: whatever the files hold, opening, listing, building, joining and committing end in an
//! answer or an error, and take no more memory than the files' sizes explain.

const std = @import("std");
const image_ = @import("../image.zig");
const format = @import("../format.zig");
const machine_ = @import("machine.zig");
const model_ = @import("model.zig");
const os = @import("../../os/os.zig");
const Image = image_.Image;
const page_size = os.page_size;
const span_pages = 48;
const gpa = std.heap.smp_allocator;

pub const Fuzz = struct {
    machine: machine_.Machine,
    processes: [1]machine_.Process,
    /// A whole image, as bytes.
    base: []u8,
    log: []u8,
    log_name: machine_.Name,
    scratch: usize,
    opened: u64 = 0,
    refused: u64 = 0,

    pub fn init(self: *Fuzz) void {
        self.* = .{
            .machine = .init(1),
            .processes = undefined,
            .base = &.{},
            .log = &.{},
            .log_name = .of("a"),
            .scratch = os.reserve(0, 2 * span_pages * page_size) catch @panic("no room"),
        };
        os.commitAnonymous(self.scratch, 2 * span_pages * page_size) catch @panic("no room");
        self.processes[0] = .{ .machine = &self.machine, .id = 0 };
        self.machine.processes = &self.processes;
        self.makeImage() catch @panic("the image to fuzz cannot be made");
    }

    pub fn deinit(self: *Fuzz) void {
        os.unmap(self.scratch, 2 * span_pages * page_size);
        gpa.free(self.base);
        gpa.free(self.log);
        self.machine.deinit();
    }

    fn options(self: *Fuzz, mode: image_.Mode) image_.OpenOptions {
        return .{ .disk = self.processes[0].disk(), .path = "a", .mode = mode, .keep = 3, .background = false, .sealed_len_min = 0 };
    }

    /// A base, two records, a branch and one more.
    fn makeImage(self: *Fuzz) !void {
        const len = span_pages * page_size;
        var history: image_.History = .{};
        defer history.deinit();
        const image = try Image.open(self.options(.create));
        try image.join(&history, len, null);
        for (0..5) |step| {
            if (step == 3) {
                const point = try image.point(2);
                self.machine.unmap(self.scratch, len);
                _ = try image.build(point, self.scratch, len);
                try image.adopt(&history, point);
            }
            for (0..1 + 5 * (step % 3)) |index| {
                const page = (step * 7 + index * 3) % span_pages;
                model_.fill(@ptrFromInt(self.scratch + page * page_size), @intCast(step * 100 + index + 1));
                image.pending.set(page);
            }
            try self.commit(image);
        }
        image.close();
        for (self.machine.names.entries.items) |*entry| {
            const bytes = try gpa.dupe(u8, entry.inode.content());
            if (entry.name.len == 1) self.base = bytes else {
                self.log = bytes;
                self.log_name = entry.name;
            }
        }
    }

    fn commit(self: *Fuzz, image: *Image) !void {
        const used = [_]image_.PageRange{.{ .first = 0, .count = span_pages }};
        const holes = [_]image_.PageRange{.{ .first = 40, .count = 4 }};
        var identity: image_.Identity = .{ .address = 0x4123_0000_0000, .span = span_pages * page_size, .capacity = span_pages * page_size, .max_size = span_pages * page_size };
        if (image.identity()) |known| identity = known;
        var attempt = try image.begin();
        defer attempt.end();
        try attempt.prepare(.{ .memory = self.scratch, .identity = identity, .used = &used, .holes = &holes });
        _ = try attempt.finish();
    }

    /// One case; what it is follows from its seed alone.
    pub fn run(self: *Fuzz, seed: u64) void {
        self.machine.deinit();
        self.machine = .init(seed);
        self.machine.processes = &self.processes;
        const random = self.machine.random();
        const base = gpa.dupe(u8, self.base) catch unreachable;
        defer gpa.free(base);
        const log = gpa.dupe(u8, self.log) catch unreachable;
        defer gpa.free(log);
        var base_len = base.len;
        var log_len = log.len;
        switch (random.uintLessThan(u8, 10)) {
            0 => {
                random.bytes(base);
                if (random.boolean()) std.mem.writeInt(u64, base[0..8], format.base_magic, .little);
                base_len = random.uintAtMost(usize, base.len);
            },
            1 => {
                random.bytes(log[if (random.boolean()) 0 else page_size..]);
                log_len = random.uintAtMost(usize, log.len);
            },
            2 => {
                for (0..1 + random.uintLessThan(usize, 4)) |_| base[random.uintLessThan(usize, base.len)] = random.int(u8);
                for (0..1 + random.uintLessThan(usize, 4)) |_| log[random.uintLessThan(usize, log.len)] = random.int(u8);
            },
            3, 4, 5 => base_len = changeBase(random, base),
            else => changeLog(random, log),
        }
        self.machine.create("a", base[0..base_len]);
        self.machine.create(self.log_name.slice(), log[0..log_len]);
        self.exercise() catch {
            self.refused += 1;
            return;
        };
        self.opened += 1;
    }

    fn exercise(self: *Fuzz) !void {
        const random = self.machine.random();
        const address = self.scratch;
        var open = self.options(if (random.boolean()) .write else .read);
        open.recover = random.uintLessThan(u8, 4) == 0;
        open.allow_damaged = random.boolean();
        open.verify = random.uintLessThan(u8, 3) == 0;
        const image = try Image.open(open);
        defer image.close();
        defer self.machine.unmap(address, 2 * span_pages * page_size);
        _ = image.info();
        const list = try image.epochs(gpa);
        defer gpa.free(list);
        var history: image_.History = .{};
        defer history.deinit();
        var taken: ?image_.Point = null;
        for (list) |epoch| {
            const point = image.point(epoch.epoch) catch continue;
            image.verify(point) catch {};
            // Who opens a heap knows how much of it can be; a stranger's word is not enough.
            const usable = @min(span_pages * page_size, std.mem.alignBackward(u64, point.identity.span, page_size));
            self.machine.unmap(address, 2 * span_pages * page_size);
            _ = image.build(point, address, usable) catch continue;
            taken = point;
        }
        if (open.mode == .read) return;
        const point = taken orelse return;
        if (point.identity.span > 1 << 30) return;
        if (random.boolean()) {
            try image.adopt(&history, point);
        } else try image.join(&history, point.identity.span, null);
        if (point.identity.span < span_pages * page_size) return;
        model_.fill(@ptrFromInt(address), 77);
        image.pending.set(0);
        try self.commit(image);
        _ = image.foldNow() catch {};
        image.pending.set(1);
        try self.commit(image);
    }
};

/// Numbers that find the edges.
fn odd(random: std.Random, before: u64) u64 {
    return switch (random.uintLessThan(u8, 12)) {
        0 => 0,
        1 => 1,
        2 => std.math.maxInt(u64),
        3 => std.math.maxInt(u64) - random.uintLessThan(u64, 5000),
        4 => before +% 1,
        5 => before -% 1,
        6 => before ^ @as(u64, 1) << random.int(u6),
        7 => random.uintLessThan(u64, 100),
        8 => @as(u64, 1) << random.int(u6),
        9 => random.int(u64),
        10 => std.mem.alignBackward(u64, random.int(u48), page_size),
        else => before,
    };
}

fn changeWord(random: std.Random, bytes: []u8, at: usize) void {
    const word = bytes[at..][0..8];
    std.mem.writeInt(u64, word, odd(random, std.mem.readInt(u64, word, .little)), .little);
}

fn changeWords(random: std.Random, bytes: []u8) void {
    if (bytes.len < 8) return;
    for (0..1 + random.uintLessThan(usize, 3)) |_| changeWord(random, bytes, random.uintAtMost(usize, bytes.len / 8 - 1) * 8);
}

/// Fields of the header, of the index or of the checksums; then every checksum over them anew.
fn changeBase(random: std.Random, bytes: []u8) usize {
    const header: *align(1) format.BaseHeader = @ptrCast(bytes.ptr);
    var copy = header.*;
    const at = copy.layout().?;
    switch (random.uintLessThan(u8, 3)) {
        0 => for (0..1 + random.uintLessThan(usize, 2)) |_| changeWord(random, std.mem.asBytes(&copy), 8 * (1 + random.uintLessThan(usize, 29))),
        1 => changeWords(random, bytes[at.lines..at.sums]),
        else => changeWords(random, bytes[at.sums..at.end]),
    }
    copy.index_checksum = format.hash(bytes[at.lines..at.sums]);
    copy.sums_checksum = format.hash(bytes[at.sums..at.end]);
    if (random.uintLessThan(u8, 8) != 0) {
        copy.magic = format.base_magic;
        copy.version = format.version;
        copy.page_size = page_size;
    }
    copy.seal();
    header.* = copy;
    return bytes.len;
}

/// The same for one or two records, and the chain from there on.
fn changeLog(random: std.Random, bytes: []u8) void {
    const changed = random.uintLessThan(usize, 4);
    var chain = std.mem.readInt(u64, bytes[4088..4096], .little);
    const first_commit = std.mem.readInt(u128, bytes[page_size + 32 ..][0..16], .little);
    const first_parent = std.mem.readInt(u128, bytes[page_size + 48 ..][0..16], .little);
    var at: usize = page_size;
    var index: usize = 0;
    while (at + page_size <= bytes.len) : (index += 1) {
        const header: *align(1) format.RecordHeader = @ptrCast(bytes[at..].ptr);
        var copy = header.*;
        if (copy.magic != format.record_magic) return;
        const layout = copy.layout().?;
        const tables = bytes[at + layout.tables ..][0..layout.tables_len];
        if (index == changed or random.uintLessThan(u8, 6) == 0) switch (random.uintLessThan(u8, 4)) {
            0 => changeWord(random, std.mem.asBytes(&copy), 8 * (1 + random.uintLessThan(usize, 25))),
            1 => changeWords(random, tables),
            // Commits that name each other, or themselves.
            2 => {
                if (random.boolean()) copy.commit = if (random.boolean()) first_commit else first_parent;
                if (random.boolean()) copy.parent = if (random.boolean()) copy.commit else first_commit;
            },
            else => changeWord(random, std.mem.asBytes(&copy), 8 * (8 + random.uintLessThan(usize, 9))),
        };
        if (random.uintLessThan(u8, 8) != 0) {
            copy.magic = format.record_magic;
            copy.chain = chain;
        }
        copy.tables_checksum = format.hash(tables);
        copy.seal();
        header.* = copy;
        const footer: *align(1) format.Footer = @ptrCast(bytes[at + layout.footer ..].ptr);
        var end: format.Footer = .{ .salt = copy.salt, .commit = copy.commit, .sequence = copy.sequence, .offset = copy.offset, .record = copy.checksum };
        end.seal();
        footer.* = end;
        chain = copy.checksum;
        at += layout.end;
    }
}
