//! A machine in memory: one directory, its files, and the processes that use them. It loses power,
//! its processes are killed, its calls fail or do half of what they were asked.
//!
//! Invariant: after a power cut each sector holds one of the values that were written to it since its
//! last successful sync, or the one from before; a file's length and the directory's names likewise.
//! A sync that failed takes none of them back, and later ones do not know of them any more, as Linux
//! does. Everything that is decided by chance comes from one generator, so a seed replays.

const std = @import("std");
const disk_ = @import("../disk.zig");
const os = @import("../../os/os.zig");
const real_disk = @import("../../os/disk.zig");
const fiber = @import("fiber.zig");
const Disk = disk_.Disk;
const File = disk_.File;
const gpa = std.heap.smp_allocator;

pub const sector_len = 512;
const Sector = [sector_len]u8;
const never = std.math.maxInt(u64);

/// A name of the directory.
pub const Name = struct {
    buffer: [79]u8 = undefined,
    len: u8,

    pub fn of(text: []const u8) Name {
        var self: Name = .{ .len = @intCast(text.len) };
        @memcpy(self.buffer[0..text.len], text);
        return self;
    }

    pub fn slice(self: *const Name) []const u8 {
        return self.buffer[0..self.len];
    }
};

/// What the medium may hold of a sector: a value, and those before it.
const Version = struct { before: u32, bytes: Sector };

const SectorState = struct { head: u32 = 0, dirty: bool = false };

const Mapping = struct { process: *Process, file: File, offset: u64, address: usize, len: usize };

pub const Inode = struct {
    number: u32 = 0,
    size: u64 = 0,
    /// Whole sectors; zeros behind `size`.
    bytes: std.ArrayList(u8) = .empty,
    sectors: std.ArrayList(SectorState) = .empty,
    /// Sectors to store at the next sync, and those of which it is not sure what is stored.
    dirty: std.ArrayList(u32) = .empty,
    unsure: std.ArrayList(u32) = .empty,
    sizes: std.ArrayList(u64) = .empty,
    size_dirty: bool = false,
    mode: u16 = 0o600,
    lock: File = disk_.none,
    mappings: std.ArrayList(Mapping) = .empty,
    used: bool = false,

    pub fn content(self: *const Inode) []u8 {
        return self.bytes.items[0..@intCast(self.size)];
    }

    fn reset(self: *Inode) void {
        self.size = 0;
        inline for (.{ &self.bytes, &self.sectors, &self.dirty, &self.unsure, &self.sizes, &self.mappings }) |list| {
            list.clearRetainingCapacity();
        }
        self.size_dirty = false;
        self.mode = 0o600;
        self.lock = disk_.none;
    }
};

pub const Entry = struct { name: Name, inode: *Inode };

pub const Directory = struct {
    entries: std.ArrayList(Entry) = .empty,

    pub fn find(self: *const Directory, name: []const u8) ?*Inode {
        for (self.entries.items) |*entry| if (std.mem.eql(u8, entry.name.slice(), name)) return entry.inode;
        return null;
    }

    pub fn put(self: *Directory, name: Name, inode: *Inode) void {
        for (self.entries.items) |*entry| if (std.mem.eql(u8, entry.name.slice(), name.slice())) {
            entry.inode = inode;
            return;
        };
        self.entries.append(gpa, .{ .name = name, .inode = inode }) catch unreachable;
    }

    pub fn remove(self: *Directory, name: []const u8) void {
        for (self.entries.items, 0..) |*entry, index| if (std.mem.eql(u8, entry.name.slice(), name)) {
            _ = self.entries.orderedRemove(index);
            return;
        };
    }
};

const Change = union(enum) {
    link: Entry,
    unlink: Name,
    rename: struct { from: Name, to: Name, inode: *Inode },

    fn apply(self: *const Change, to: *Directory) void {
        switch (self.*) {
            .link => |made| to.put(made.name, made.inode),
            .unlink => |name| to.remove(name.slice()),
            .rename => |moved| {
                if (to.find(moved.from.slice()) == moved.inode) to.remove(moved.from.slice());
                to.put(moved.to, moved.inode);
            },
        }
    }
};

/// An opening of a file or of the directory; lives on while something is mapped from it.
const Opening = struct {
    inode: ?*Inode = null,
    process: *Process = undefined,
    open: bool = false,
    mapped: u32 = 0,
    write: bool = false,
};

/// A process of the machine: the `Disk` that its images are opened on.
pub const Process = struct {
    machine: *Machine,
    id: u8,
    dead: bool = false,
    /// One call in so many fails, or does a part only; 0: none.
    fails_one_in: u32 = 0,
    short_one_in: u32 = 0,
    /// A call failed since this was last cleared.
    failed: bool = false,
    failures: u32 = 0,

    pub fn noteFailure(self: *Process) void {
        self.failed = true;
        self.failures += 1;
    }

    pub fn disk(self: *Process) Disk {
        return .{ .context = self, .vtable = comptime &Disk.vtableOf(calls) };
    }
};

pub const Crash = enum { none, cut, kill };

/// What a call does to the medium: crashes and failures aim at what matters.
pub const Kind = enum { look, bytes, names, sync, sync_dir };

pub const Machine = struct {
    prng: std.Random.DefaultPrng,
    inodes: std.ArrayList(*Inode) = .empty,
    names: Directory = .{},
    stored: Directory = .{},
    changes: std.ArrayList(Change) = .empty,
    files: std.ArrayList(Opening) = .empty,
    versions: std.ArrayList(Version) = .empty,
    versions_free: u32 = 0,
    processes: []Process = &.{},
    steps: u64 = 0,
    syncs: u64 = 0,
    failures: u64 = 0,
    kills: u64 = 0,
    clock: u64 = 1,
    /// At this step something ends.
    crash_at: u64 = never,
    crash: Crash = .none,
    /// The crash waits for a call of this kind.
    crash_on: ?Kind = null,
    /// A sync fails once in so many; 0: as other calls do.
    sync_fails_one_in: u32 = 0,
    /// At the next chance somebody puts a file of his own in the way of a rename.
    intrudes: bool = false,
    intruder: ?struct { inode: *Inode, name: Name, original: ?*Inode, process: *Process } = null,
    power_lost: bool = false,
    /// Another fiber may go on at one call in so many; 0: never.
    switches_one_in: u32 = 0,
    /// Nothing may grow: the medium is full.
    full: bool = false,
    no_allocate: bool = false,
    no_copy: bool = false,
    no_exclusive_rename: bool = false,
    trace: bool = false,
    /// What the engine must never do, seen from below.
    offence: ?[]const u8 = null,

    pub fn init(seed: u64) Machine {
        var self: Machine = .{ .prng = .init(seed) };
        self.versions.append(gpa, undefined) catch unreachable;
        return self;
    }

    pub fn deinit(self: *Machine) void {
        for (self.inodes.items) |inode| {
            inline for (.{ &inode.bytes, &inode.sectors, &inode.dirty, &inode.unsure, &inode.sizes, &inode.mappings }) |list| list.deinit(gpa);
            gpa.destroy(inode);
        }
        self.inodes.deinit(gpa);
        self.names.entries.deinit(gpa);
        self.stored.entries.deinit(gpa);
        self.changes.deinit(gpa);
        self.files.deinit(gpa);
        self.versions.deinit(gpa);
    }

    pub fn random(self: *Machine) std.Random {
        return self.prng.random();
    }

    pub fn oneIn(self: *Machine, count: u32) bool {
        return count > 0 and self.random().uintLessThan(u32, count) == 0;
    }

    fn accuse(self: *Machine, what: []const u8) void {
        if (self.offence == null) self.offence = what;
    }

    // ---- sectors and sizes

    fn version(self: *Machine, before: u32, bytes: *const Sector) u32 {
        const index = self.versions_free;
        if (index != 0) {
            self.versions_free = self.versions.items[index].before;
            self.versions.items[index] = .{ .before = before, .bytes = bytes.* };
            return index;
        }
        self.versions.append(gpa, .{ .before = before, .bytes = bytes.* }) catch unreachable;
        return @intCast(self.versions.items.len - 1);
    }

    fn forget(self: *Machine, state: *SectorState) void {
        var at = state.head;
        while (at != 0) {
            const before = self.versions.items[at].before;
            self.versions.items[at].before = self.versions_free;
            self.versions_free = at;
            at = before;
        }
        state.head = 0;
    }

    /// A sector gets new bytes: the medium may hold these or those from before.
    fn change(self: *Machine, inode: *Inode, index: usize, from: usize, bytes: []const u8) void {
        const state = &inode.sectors.items[index];
        const sector = inode.bytes.items[index * sector_len ..][0..sector_len];
        if (std.mem.eql(u8, sector[from..][0..bytes.len], bytes)) {
            if (state.head == 0) return;
        } else {
            if (isMapped(inode, index * sector_len + from, bytes.len)) self.accuse("a page that somebody has mapped is written over");
            if (state.head == 0) {
                state.head = self.version(0, sector);
                inode.unsure.append(gpa, @intCast(index)) catch unreachable;
            }
            @memcpy(sector[from..][0..bytes.len], bytes);
            state.head = self.version(state.head, sector);
        }
        if (state.dirty) return;
        state.dirty = true;
        inode.dirty.append(gpa, @intCast(index)) catch unreachable;
    }

    fn isMapped(inode: *const Inode, offset: u64, len: u64) bool {
        for (inode.mappings.items) |*mapping| {
            if (offset < mapping.offset + mapping.len and mapping.offset < offset + len) return true;
        }
        return false;
    }

    fn resize(self: *Machine, inode: *Inode, size: u64) void {
        if (size == inode.size) return;
        if (inode.sizes.items.len == 0) inode.sizes.append(gpa, inode.size) catch unreachable;
        inode.sizes.append(gpa, size) catch unreachable;
        inode.size_dirty = true;
        const sectors: usize = @intCast(std.math.divCeil(u64, size, sector_len) catch unreachable);
        if (size < inode.size) {
            for (inode.mappings.items) |*mapping| {
                if (mapping.offset + mapping.len > std.mem.alignForward(u64, size, os.page_size)) self.accuse("a page that somebody has mapped is cut away");
            }
            const zeros: Sector = @splat(0);
            var at: usize = @intCast(size);
            const end: usize = @intCast(std.mem.alignForward(u64, inode.size, sector_len));
            while (at < end) {
                const inside = at % sector_len;
                self.change(inode, at / sector_len, inside, zeros[inside..]);
                at += sector_len - inside;
            }
        } else extend(inode, sectors);
        inode.size = size;
    }

    fn extend(inode: *Inode, sectors: usize) void {
        if (sectors <= inode.sectors.items.len) return;
        inode.bytes.appendNTimes(gpa, 0, (sectors - inode.sectors.items.len) * sector_len) catch unreachable;
        inode.sectors.appendNTimes(gpa, .{}, sectors - inode.sectors.items.len) catch unreachable;
    }

    fn store(self: *Machine, inode: *Inode, bytes: []const u8, offset: u64) void {
        if (bytes.len == 0) return;
        if (offset + bytes.len > inode.size) self.resize(inode, offset + bytes.len);
        var done: usize = 0;
        while (done < bytes.len) {
            const at: usize = @intCast(offset + done);
            const inside = at % sector_len;
            const part = @min(sector_len - inside, bytes.len - done);
            self.change(inode, at / sector_len, inside, bytes[done..][0..part]);
            done += part;
        }
    }

    fn syncInode(self: *Machine, inode: *Inode, fails: bool) void {
        for (inode.dirty.items) |index| {
            const state = &inode.sectors.items[index];
            state.dirty = false;
            if (!fails) self.forget(state);
        }
        inode.dirty.clearRetainingCapacity();
        if (!fails) {
            var left: usize = 0;
            for (inode.unsure.items) |index| {
                if (inode.sectors.items[index].head == 0) continue;
                inode.unsure.items[left] = index;
                left += 1;
            }
            inode.unsure.shrinkRetainingCapacity(left);
            if (inode.size_dirty) inode.sizes.clearRetainingCapacity();
        }
        inode.size_dirty = false;
    }

    // ---- ends

    /// What a process held is given back by the system; a forked child of it may live on, which has the
    /// mappings and no descriptor.
    pub fn reap(self: *Machine, process: *Process, has_child: bool) void {
        if (!has_child) for (self.inodes.items) |inode| {
            var index = inode.mappings.items.len;
            while (index > 0) {
                index -= 1;
                if (inode.mappings.items[index].process == process) self.dropMapping(inode, index);
            }
        };
        for (self.files.items, 0..) |*opening, file| {
            if (opening.open and opening.process == process) self.closeOpening(@intCast(file));
        }
    }

    fn dropMapping(self: *Machine, inode: *Inode, index: usize) void {
        const mapping = inode.mappings.swapRemove(index);
        const opening = &self.files.items[@intCast(mapping.file)];
        opening.mapped -= 1;
        if (!opening.open and opening.mapped == 0) self.freeOpening(mapping.file);
    }

    fn closeOpening(self: *Machine, file: File) void {
        const opening = &self.files.items[@intCast(file)];
        opening.open = false;
        if (opening.mapped == 0) self.freeOpening(file);
    }

    /// The lock goes with the last that refers to the opening.
    fn freeOpening(self: *Machine, file: File) void {
        const opening = &self.files.items[@intCast(file)];
        if (opening.inode) |inode| if (inode.lock == file) {
            inode.lock = disk_.none;
        };
        opening.inode = null;
    }

    /// Memory of a process is not mapped from files any more.
    pub fn unmap(self: *Machine, address: usize, len: usize) void {
        for (self.inodes.items) |inode| {
            var index = inode.mappings.items.len;
            while (index > 0) {
                index -= 1;
                const mapping = &inode.mappings.items[index];
                if (mapping.address >= address and mapping.address < address + len) self.dropMapping(inode, index);
            }
        }
    }

    /// The power is gone and back; no process lives. What the medium holds is decided now.
    pub fn restart(self: *Machine) void {
        const chance = self.random();
        if (self.intruder != null) self.endIntrusion();
        for (self.processes) |*process| {
            self.reap(process, false);
            process.dead = true;
        }
        const ordered = chance.boolean();
        const kept = chance.uintAtMost(usize, self.changes.items.len);
        for (self.changes.items, 0..) |*each, index| {
            if (if (ordered) index >= kept else chance.boolean()) continue;
            each.apply(&self.stored);
        }
        self.changes.clearRetainingCapacity();
        self.names.entries.clearRetainingCapacity();
        self.names.entries.appendSlice(gpa, self.stored.entries.items) catch unreachable;
        self.sweep();
        // Sometimes nearly all of a file made it, sometimes nearly nothing.
        for (self.inodes.items) |inode| if (inode.used) self.settle(inode, chance.uintAtMost(u8, 20));
        self.power_lost = false;
    }

    fn settle(self: *Machine, inode: *Inode, bias: u8) void {
        const chance = self.random();
        for (inode.unsure.items) |index| {
            const state = &inode.sectors.items[index];
            var count: u32 = 0;
            var at = state.head;
            while (at != 0) : (at = self.versions.items[at].before) count += 1;
            if (count == 0) continue;
            var back = if (chance.uintLessThan(u8, 20) < bias) 0 else chance.uintLessThan(u32, count);
            at = state.head;
            while (back > 0) : (back -= 1) at = self.versions.items[at].before;
            @memcpy(inode.bytes.items[index * sector_len ..][0..sector_len], &self.versions.items[at].bytes);
            self.forget(state);
        }
        inode.unsure.clearRetainingCapacity();
        for (inode.dirty.items) |index| inode.sectors.items[index].dirty = false;
        inode.dirty.clearRetainingCapacity();
        if (inode.sizes.items.len > 0) {
            const sizes = inode.sizes.items;
            inode.size = if (chance.uintLessThan(u8, 20) < bias) sizes[sizes.len - 1] else sizes[chance.uintLessThan(usize, sizes.len)];
        }
        inode.sizes.clearRetainingCapacity();
        inode.size_dirty = false;
        const sectors: usize = @intCast(std.math.divCeil(u64, inode.size, sector_len) catch unreachable);
        extend(inode, sectors);
        @memset(inode.bytes.items[@intCast(inode.size)..], 0);
    }

    /// Frees inodes that nothing names or has open.
    fn sweep(self: *Machine) void {
        for (self.inodes.items) |inode| inode.used = false;
        for (self.names.entries.items) |entry| entry.inode.used = true;
        for (self.stored.entries.items) |entry| entry.inode.used = true;
        for (self.changes.items) |each| switch (each) {
            .link => |made| made.inode.used = true,
            .rename => |moved| moved.inode.used = true,
            .unlink => {},
        };
        for (self.files.items) |opening| if (opening.inode) |inode| {
            inode.used = true;
        };
        for (self.inodes.items) |inode| if (!inode.used) {
            for (inode.unsure.items) |index| self.forget(&inode.sectors.items[index]);
            inode.reset();
        };
    }

    fn newInode(self: *Machine) *Inode {
        const found = for (self.inodes.items) |inode| {
            if (!inode.used) break inode;
        } else blk: {
            if (self.inodes.items.len >= 16) {
                self.sweep();
                for (self.inodes.items) |inode| if (!inode.used) break :blk inode;
            }
            const inode = gpa.create(Inode) catch unreachable;
            inode.* = .{};
            self.inodes.append(gpa, inode) catch unreachable;
            break :blk inode;
        };
        found.used = true;
        found.number = self.freeNumber();
        return found;
    }

    /// Numbers are used again as soon as nothing in the running system refers to them.
    fn freeNumber(self: *Machine) u32 {
        var number: u32 = 10;
        search: while (true) : (number += 1) {
            for (self.names.entries.items) |entry| if (entry.inode.number == number) continue :search;
            for (self.files.items) |opening| if (opening.inode) |inode| if (inode.number == number) continue :search;
            return number;
        }
    }

    // ---- for the simulation itself

    pub fn create(self: *Machine, name: []const u8, bytes: []const u8) void {
        const inode = self.newInode();
        extend(inode, std.math.divCeil(usize, bytes.len, sector_len) catch unreachable);
        @memcpy(inode.bytes.items[0..bytes.len], bytes);
        inode.size = bytes.len;
        self.names.put(.of(name), inode);
        self.stored.put(.of(name), inode);
    }

    /// The same files, at rest, on a machine of its own.
    pub fn clone(self: *const Machine, seed: u64) Machine {
        var other: Machine = .init(seed);
        for (self.names.entries.items) |*entry| other.create(entry.name.slice(), entry.inode.content());
        return other;
    }

    /// Somebody moves a file; it is on the medium at once.
    pub fn move(self: *Machine, from: []const u8, to: []const u8) void {
        const inode = self.names.find(from) orelse return;
        const moved: Change = .{ .rename = .{ .from = .of(from), .to = .of(to), .inode = inode } };
        moved.apply(&self.names);
        self.storeNames();
    }

    pub fn remove(self: *Machine, name: []const u8) void {
        self.names.remove(name);
        self.storeNames();
    }

    fn storeNames(self: *Machine) void {
        self.changes.clearRetainingCapacity();
        self.stored.entries.clearRetainingCapacity();
        self.stored.entries.appendSlice(gpa, self.names.entries.items) catch unreachable;
    }

    fn opened(self: *Machine, process: *Process, inode: ?*Inode, write: bool) i64 {
        const made: Opening = .{ .inode = inode, .process = process, .open = true, .write = write };
        for (self.files.items, 0..) |*opening, file| if (!opening.open and opening.mapped == 0) {
            opening.* = made;
            return @intCast(file);
        };
        self.files.append(gpa, made) catch unreachable;
        return @intCast(self.files.items.len - 1);
    }

    /// What a call has to do: all of it, nothing and fail, or something and fail.
    const Verdict = struct { errno: i64 = 0, effect: bool = true };

    /// Every call begins here: time passes, others run, things break.
    fn enter(self: *Machine, process: *Process, kind: Kind) Verdict {
        const gone: Verdict = .{ .errno = -@as(i64, @intFromEnum(os.E.IO)), .effect = false };
        if (process.dead) return gone;
        self.steps += 1;
        if (self.intruder) |guest| {
            // Nothing else happens until it is gone again.
            process.noteFailure();
            if (guest.process == process and kind != .look and kind != .names) self.endIntrusion();
            return .{};
        }
        if (self.oneIn(self.switches_one_in)) {
            fiber.yield();
            if (process.dead) return gone;
        }
        if (self.steps >= self.crash_at and (self.crash_on orelse kind) == kind) {
            self.crash_at = never;
            switch (self.crash) {
                .none => {},
                .kill => {
                    process.dead = true;
                    self.kills += 1;
                },
                .cut => {
                    self.power_lost = true;
                    for (self.processes) |*each| each.dead = true;
                },
            }
            if (process.dead) return .{ .errno = gone.errno, .effect = self.random().boolean() };
        }
        const aimed = process.fails_one_in > 0 and (kind == .sync or kind == .sync_dir);
        const fails_one_in = if (aimed) self.sync_fails_one_in else process.fails_one_in;
        if (self.oneIn(fails_one_in)) {
            process.noteFailure();
            self.failures += 1;
            const e: os.E = if (self.random().boolean()) .IO else .NOSPC;
            return .{ .errno = -@as(i64, @intFromEnum(e)), .effect = false };
        }
        return .{};
    }

    /// Somebody replaces a base while its successor is written, or takes a path that was free.
    fn intrude(self: *Machine, process: *Process, base: []const u8) void {
        self.intrudes = false;
        const inode = self.newInode();
        const name: Name = .of(base);
        self.intruder = .{ .inode = inode, .name = name, .original = self.names.find(base), .process = process };
        self.names.put(name, inode);
        process.noteFailure();
    }

    fn endIntrusion(self: *Machine) void {
        const guest = self.intruder.?;
        self.intruder = null;
        if (guest.original) |inode| self.names.put(guest.name, inode) else self.names.remove(guest.name.slice());
    }

    /// A growing file on a full medium.
    fn noRoom(self: *Machine, process: *Process) ?i64 {
        if (!self.full) return null;
        process.noteFailure();
        return no(.NOSPC);
    }
};

fn no(e: os.E) i64 {
    return -@as(i64, @intFromEnum(e));
}

/// The functions of a `Disk`; the context is a `Process`.
const calls = struct {
    const Call = struct {
        machine: *Machine,
        process: *Process,
        verdict: Machine.Verdict,

        fn inode(self: Call, file: File) *Inode {
            return self.machine.files.items[@intCast(file)].inode.?;
        }

        fn say(self: Call, comptime format: []const u8, args: anytype) void {
            if (!self.machine.trace) return;
            std.debug.print("{d:>7} {d} ", .{ self.machine.steps, self.process.id });
            std.debug.print(format, args);
            if (self.verdict.errno != 0) std.debug.print(" fails{s}", .{if (self.verdict.effect) " half done" else ""});
            std.debug.print("\n", .{});
        }
    };

    fn begin(context: ?*anyopaque, kind: Kind) Call {
        const process: *Process = @ptrCast(@alignCast(context.?));
        return .{ .machine = process.machine, .process = process, .verdict = process.machine.enter(process, kind) };
    }

    fn of(context: ?*anyopaque) *Process {
        return @ptrCast(@alignCast(context.?));
    }

    fn openingOf(process: *Process, file: File) *Opening {
        const opening = &process.machine.files.items[@intCast(file)];
        if (!opening.open or opening.process != process) process.machine.accuse("a descriptor is used that is not open");
        return opening;
    }

    pub fn open(c: ?*anyopaque, _: File, name: [*:0]const u8, how: disk_.How) i64 {
        const call = begin(c, if (how.create) .names else .bytes);
        const machine = call.machine;
        const text = std.mem.span(name);
        if (machine.intruder != null) machine.endIntrusion();
        call.say("open {s}{s}{s}", .{ text, if (how.write) " to write" else "", if (how.create) " new" else "" });
        if (!call.verdict.effect) return call.verdict.errno;
        if (how.directory) return if (call.verdict.errno != 0) call.verdict.errno else machine.opened(call.process, null, false);
        const found = machine.names.find(text);
        if (found != null and how.create) return no(.EXIST);
        if (found == null and !how.create) return no(.NOENT);
        const inode = found orelse blk: {
            if (machine.noRoom(call.process)) |errno| return errno;
            const made = machine.newInode();
            machine.names.put(.of(text), made);
            machine.changes.append(gpa, .{ .link = .{ .name = .of(text), .inode = made } }) catch unreachable;
            break :blk made;
        };
        return if (call.verdict.errno != 0) call.verdict.errno else machine.opened(call.process, inode, how.write);
    }

    pub fn openDirect(_: ?*anyopaque, _: File) i64 {
        return no(.INVAL);
    }

    pub fn close(c: ?*anyopaque, file: File) void {
        const process = of(c);
        if (process.dead) return;
        _ = openingOf(process, file);
        process.machine.closeOpening(file);
    }

    fn describe(inode: *const Inode, out: *disk_.Stat) void {
        out.* = .{ .device = 1, .inode = inode.number, .size = inode.size, .allocated = inode.size, .kind = .regular, .mode = inode.mode };
    }

    pub fn stat(c: ?*anyopaque, file: File, out: *disk_.Stat) i64 {
        const call = begin(c, .look);
        if (call.verdict.errno != 0) return call.verdict.errno;
        const opening = openingOf(call.process, file);
        if (opening.inode) |inode| describe(inode, out) else out.* = .{ .device = 1, .inode = 2, .kind = .directory };
        return 0;
    }

    pub fn statAt(c: ?*anyopaque, _: File, name: [*:0]const u8, out: *disk_.Stat) i64 {
        const call = begin(c, .look);
        call.say("look at {s}", .{std.mem.span(name)});
        if (call.verdict.errno != 0) return call.verdict.errno;
        const inode = call.machine.names.find(std.mem.span(name)) orelse return no(.NOENT);
        describe(inode, out);
        return 0;
    }

    pub fn readLink(_: ?*anyopaque, _: File, _: [*:0]const u8, _: []u8) i64 {
        return no(.INVAL);
    }

    pub fn read(c: ?*anyopaque, file: File, buffer: []u8, offset: u64) i64 {
        const call = begin(c, .bytes);
        if (call.verdict.errno != 0) return call.verdict.errno;
        _ = openingOf(call.process, file);
        const inode = call.inode(file);
        var len: usize = @intCast(@min(buffer.len, inode.size -| offset));
        if (len > 1 and call.machine.oneIn(call.process.short_one_in)) len = 1 + call.machine.random().uintLessThan(usize, len);
        @memcpy(buffer[0..len], inode.bytes.items[@intCast(@min(offset, inode.size))..][0..len]);
        return @intCast(len);
    }

    pub fn write(c: ?*anyopaque, file: File, bytes: []const u8, offset: u64) i64 {
        const call = begin(c, .bytes);
        const machine = call.machine;
        const inode = call.inode(file);
        call.say("write {d} bytes at {d} of {d}", .{ bytes.len, offset, inode.number });
        if (call.process.dead and !call.verdict.effect) return call.verdict.errno;
        if (!openingOf(call.process, file).write) machine.accuse("a file open for reading is written to");
        if (offset + bytes.len > inode.size) if (machine.noRoom(call.process)) |errno| return errno;
        var len = bytes.len;
        if (call.verdict.errno != 0) {
            // A write that fails, or whose process dies in it, may have done its first part.
            len = machine.random().uintAtMost(usize, bytes.len);
        } else if (machine.oneIn(call.process.short_one_in)) len = 1 + machine.random().uintLessThan(usize, bytes.len);
        machine.store(inode, bytes[0..len], offset);
        return if (call.verdict.errno != 0) call.verdict.errno else @intCast(len);
    }

    pub fn copy(c: ?*anyopaque, from: File, at: u64, to: File, to_at: u64, len: u64) i64 {
        const call = begin(c, .bytes);
        const machine = call.machine;
        if (call.verdict.errno != 0) return call.verdict.errno;
        if (machine.no_copy) return no(.OPNOTSUPP);
        const source = call.inode(from);
        const target = call.inode(to);
        var part: usize = @intCast(@min(16384, len, source.size -| at));
        if (to_at + part > target.size) if (machine.noRoom(call.process)) |errno| return errno;
        if (part > 1 and machine.oneIn(call.process.short_one_in)) part = 1 + machine.random().uintLessThan(usize, part);
        machine.store(target, source.bytes.items[@intCast(at)..][0..part], to_at);
        return @intCast(part);
    }

    pub fn allocate(c: ?*anyopaque, file: File, offset: u64, len: u64) i64 {
        const call = begin(c, .bytes);
        call.say("allocate to {d} of {d}", .{ offset + len, call.inode(file).number });
        if (!call.verdict.effect) return call.verdict.errno;
        if (call.machine.no_allocate) return no(.OPNOTSUPP);
        const inode = call.inode(file);
        if (offset + len > inode.size) {
            if (call.machine.noRoom(call.process)) |errno| return errno;
            call.machine.resize(inode, offset + len);
        }
        return call.verdict.errno;
    }

    pub fn truncate(c: ?*anyopaque, file: File, len: u64) i64 {
        const call = begin(c, .bytes);
        call.say("truncate {d} to {d}", .{ call.inode(file).number, len });
        if (!call.verdict.effect) return call.verdict.errno;
        if (!openingOf(call.process, file).write) call.machine.accuse("a file open for reading is truncated");
        call.machine.resize(call.inode(file), len);
        return call.verdict.errno;
    }

    pub fn sync(c: ?*anyopaque, file: File) i64 {
        const call = begin(c, .sync);
        call.say("sync {d}", .{call.inode(file).number});
        if (call.process.dead) return call.verdict.errno;
        call.machine.syncs += 1;
        call.machine.syncInode(call.inode(file), call.verdict.errno != 0);
        return call.verdict.errno;
    }

    pub fn syncDir(c: ?*anyopaque, _: File) i64 {
        const call = begin(c, .sync_dir);
        call.say("sync directory", .{});
        if (call.verdict.errno != 0) return call.verdict.errno;
        const machine = call.machine;
        if (machine.intrudes) for (machine.names.entries.items) |*entry| {
            const name = entry.name.slice();
            // Only who has just written a successor is about to rename it.
            if (!std.mem.endsWith(u8, name, "-new") or entry.inode.size < os.page_size) continue;
            if (entry.inode.lock < 0 or machine.files.items[@intCast(entry.inode.lock)].process != call.process) continue;
            machine.intrude(call.process, name[0 .. name.len - "-new".len]);
            break;
        };
        machine.syncs += 1;
        for (machine.changes.items) |*each| each.apply(&machine.stored);
        machine.changes.clearRetainingCapacity();
        return 0;
    }

    pub fn startWriting(_: ?*anyopaque, _: File, _: u64, _: u64) void {}

    pub fn lock(c: ?*anyopaque, file: File) i64 {
        const call = begin(c, .bytes);
        if (call.verdict.errno != 0) return call.verdict.errno;
        _ = openingOf(call.process, file);
        const inode = call.inode(file);
        call.say("lock {d}{s}", .{ inode.number, if (inode.lock >= 0 and inode.lock != file) " in vain" else "" });
        if (inode.lock >= 0 and inode.lock != file) return no(.AGAIN);
        inode.lock = file;
        return 0;
    }

    pub fn unlock(c: ?*anyopaque, file: File) void {
        const process = of(c);
        if (process.dead) return;
        const inode = openingOf(process, file).inode orelse return;
        if (inode.lock == file) inode.lock = disk_.none;
    }

    pub fn locked(c: ?*anyopaque, file: File) i64 {
        const process = of(c);
        const inode = process.machine.files.items[@intCast(file)].inode orelse return 0;
        return @intFromBool(inode.lock >= 0 and inode.lock != file);
    }

    pub fn rename(c: ?*anyopaque, _: File, from: [*:0]const u8, to: [*:0]const u8, replace: bool) i64 {
        const call = begin(c, .names);
        const machine = call.machine;
        call.say("rename {s} to {s}", .{ std.mem.span(from), std.mem.span(to) });
        if (!call.verdict.effect) return call.verdict.errno;
        if (machine.intruder) |guest| {
            if (std.mem.eql(u8, guest.name.slice(), std.mem.span(to))) {
                if (replace) machine.accuse("a file that somebody else put there is replaced");
                machine.endIntrusion();
                return no(.EXIST);
            }
        }
        if (!replace and machine.no_exclusive_rename) return no(.INVAL);
        const inode = machine.names.find(std.mem.span(from)) orelse return no(.NOENT);
        if (!replace and machine.names.find(std.mem.span(to)) != null) return no(.EXIST);
        const moved: Change = .{ .rename = .{ .from = .of(std.mem.span(from)), .to = .of(std.mem.span(to)), .inode = inode } };
        moved.apply(&machine.names);
        machine.changes.append(gpa, moved) catch unreachable;
        return call.verdict.errno;
    }

    pub fn link(c: ?*anyopaque, _: File, from: [*:0]const u8, to: [*:0]const u8) i64 {
        const call = begin(c, .names);
        const machine = call.machine;
        if (machine.intruder != null) machine.endIntrusion();
        call.say("link {s} to {s}", .{ std.mem.span(from), std.mem.span(to) });
        if (!call.verdict.effect) return call.verdict.errno;
        const inode = machine.names.find(std.mem.span(from)) orelse return no(.NOENT);
        if (machine.names.find(std.mem.span(to)) != null) return no(.EXIST);
        const made: Change = .{ .link = .{ .name = .of(std.mem.span(to)), .inode = inode } };
        made.apply(&machine.names);
        machine.changes.append(gpa, made) catch unreachable;
        return call.verdict.errno;
    }

    pub fn unlink(c: ?*anyopaque, _: File, name: [*:0]const u8) i64 {
        const call = begin(c, .names);
        const machine = call.machine;
        if (machine.intruder != null) machine.endIntrusion();
        call.say("unlink {s}", .{std.mem.span(name)});
        if (!call.verdict.effect) return call.verdict.errno;
        if (machine.names.find(std.mem.span(name)) == null) return no(.NOENT);
        const gone: Change = .{ .unlink = .of(std.mem.span(name)) };
        gone.apply(&machine.names);
        machine.changes.append(gpa, gone) catch unreachable;
        return call.verdict.errno;
    }

    pub fn setMode(c: ?*anyopaque, file: File, mode: u16) i64 {
        const call = begin(c, .bytes);
        if (call.verdict.errno != 0) return call.verdict.errno;
        call.inode(file).mode = mode;
        return 0;
    }

    pub fn list(c: ?*anyopaque, _: File, context: *anyopaque, visit: real_disk.Visit) i64 {
        const call = begin(c, .bytes);
        if (call.verdict.errno != 0) return call.verdict.errno;
        for (call.machine.names.entries.items) |*entry| {
            var text: [80:0]u8 = @splat(0);
            @memcpy(text[0..entry.name.len], entry.name.slice());
            visit(context, text[0..entry.name.len :0]);
        }
        return 0;
    }

    pub fn map(c: ?*anyopaque, file: File, offset: u64, address: usize, len: usize) i64 {
        const call = begin(c, .bytes);
        const machine = call.machine;
        if (call.verdict.errno != 0) return call.verdict.errno;
        const inode = call.inode(file);
        call.say("map {d} bytes at {d} of {d}", .{ len, offset, inode.number });
        if (offset + len > std.mem.alignForward(u64, inode.size, os.page_size)) {
            machine.accuse("pages behind the end of a file are mapped");
            return no(.INVAL);
        }
        const to = @as([*]u8, @ptrFromInt(address))[0..len];
        const part: usize = @intCast(@min(len, inode.size - offset));
        @memcpy(to[0..part], inode.bytes.items[@intCast(offset)..][0..part]);
        @memset(to[part..], 0);
        inode.mappings.append(gpa, .{ .process = call.process, .file = file, .offset = offset, .address = address, .len = len }) catch unreachable;
        openingOf(call.process, file).mapped += 1;
        return 0;
    }

    pub fn holesCost(_: ?*anyopaque, _: File) i64 {
        return 0;
    }

    pub fn seek(_: ?*anyopaque, _: File, offset: u64, _: real_disk.Seek) i64 {
        return @intCast(offset);
    }

    pub fn mapsFree(_: ?*anyopaque) u64 {
        return 60_000;
    }

    pub fn pause(_: ?*anyopaque, _: u64) void {
        fiber.yield();
    }

    pub fn now(c: ?*anyopaque) u64 {
        of(c).machine.clock += 1;
        return of(c).machine.clock;
    }

    pub fn random(c: ?*anyopaque, into: []u8) void {
        of(c).machine.random().bytes(into);
    }
};
