//! A machine in memory: one directory, its files, and the processes that use them. It loses power,
//! its processes are killed, its calls fail or do half of what they were asked.
//!
//! Invariant: everything that is decided by chance comes from one generator, so a seed replays. What a
//! power cut leaves is medium.zig's.

const std = @import("std");
const disk_ = @import("../disk.zig");
const os = @import("../../os/os.zig");
const calls = @import("calls.zig");
const fiber = @import("fiber.zig");
const medium_ = @import("medium.zig");
const Change = medium_.Change;
const Directory = medium_.Directory;
const Disk = disk_.Disk;
const File = disk_.File;
const Inode = medium_.Inode;
const Medium = medium_.Medium;
pub const Name = medium_.Name;
const gpa = std.heap.smp_allocator;

const never = std.math.maxInt(u64);
pub const stall_turns_max = 300;

/// An opening of a file or of the directory; lives on while something is mapped from it.
pub const Opening = struct {
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
    /// Nothing of that happens for now.
    spared: bool = false,
    /// The call after so many fails, if it is one that moves bytes.
    fails_in: u32 = 0,
    /// The next call of that kind fails; and the next write of so many bytes, when all of them are stored.
    fails_on: ?Kind = null,
    fails_after: usize = 0,
    /// A call failed since this was last cleared.
    failed: bool = false,
    failures: u32 = 0,
    /// One write in so many stores something else than it was given; 0: none. And that it did.
    flips_one_in: u32 = 0,
    flipped: bool = false,

    pub fn noteFailure(self: *Process) void {
        self.failed = true;
        self.failures += 1;
    }

    pub fn hasOpen(self: *const Process, inode: *const Inode) bool {
        for (self.machine.files.items) |*opening| if (opening.open and opening.process == self and opening.inode == inode) return true;
        return false;
    }

    pub fn disk(self: *Process) Disk {
        return .{ .context = self, .vtable = comptime &Disk.vtableOf(calls) };
    }
};

pub const Crash = enum { none, cut, kill };

/// What a call does to the medium: crashes and failures aim at what matters. `sync_moved`: the directory's
/// sync that makes a renaming sure.
pub const Kind = enum { look, bytes, names, sync, sync_dir, sync_moved };

pub const Machine = struct {
    prng: std.Random.DefaultPrng,
    inodes: std.ArrayList(*Inode) = .empty,
    names: Directory = .{},
    stored: Directory = .{},
    changes: std.ArrayList(Change) = .empty,
    files: std.ArrayList(Opening) = .empty,
    medium: Medium,
    processes: []Process = &.{},
    steps: u64 = 0,
    syncs: u64 = 0,
    failures: u64 = 0,
    kills: u64 = 0,
    clock: u64 = 1,
    /// How often the system was started.
    starts: u32 = 1,
    /// At this step something ends.
    crash_at: u64 = never,
    crash: Crash = .none,
    /// The crash waits for a call of this kind.
    crash_on: ?Kind = null,
    /// A sync fails once in so many; 0: as other calls do.
    sync_fails_one_in: u32 = 0,
    /// The same of a directory's that makes a renaming sure; 0: as other syncs.
    moved_fails_one_in: u32 = 0,
    /// The crash comes within so many steps of a sync that failed; 0: when it comes anyway.
    crash_after_failure: u32 = 0,
    /// At the next chance somebody puts a file of his own in the way of a rename.
    intrudes: bool = false,
    intruder: ?struct { inode: *Inode, name: Name, original: ?*Inode, process: *Process } = null,
    power_lost: bool = false,
    /// Another fiber may go on at one call in so many; 0: never.
    switches_one_in: u32 = 0,
    /// So long others may go on during a sync.
    sync_turns_max: usize = 0,
    /// At one call in so many a process stands still for long; 0: never.
    stalls_one_in: u32 = 0,
    /// One name in so many cannot be removed, one file that its process has open already not be opened once
    /// more; 0: none.
    stays_one_in: u32 = 0,
    again_one_in: u32 = 0,
    /// Nothing may grow: the medium is full.
    full: bool = false,
    no_allocate: bool = false,
    no_copy: bool = false,
    no_exclusive_rename: bool = false,
    no_exchange: bool = false,
    /// Nothing can be written past the page cache.
    no_direct: bool = false,
    directs: u64 = 0,
    /// No name can be removed.
    refuses_unlink: bool = false,
    /// How often a file was found to be nobody else's.
    soles: u64 = 0,
    /// Logs that took the space of those before.
    rooms: u64 = 0,
    trace: bool = false,

    pub fn init(seed: u64) Machine {
        return .{ .prng = .init(seed), .medium = .init() };
    }

    pub fn deinit(self: *Machine) void {
        for (self.inodes.items) |inode| {
            inode.deinit();
            gpa.destroy(inode);
        }
        self.inodes.deinit(gpa);
        self.names.entries.deinit(gpa);
        self.stored.entries.deinit(gpa);
        self.changes.deinit(gpa);
        self.files.deinit(gpa);
        self.medium.deinit();
    }

    pub fn random(self: *Machine) std.Random {
        return self.prng.random();
    }

    pub fn oneIn(self: *Machine, count: u32) bool {
        return count > 0 and self.random().uintLessThan(u32, count) == 0;
    }

    /// Dates a change of the file.
    pub fn date(self: *Machine, inode: *Inode) i64 {
        self.clock += 1;
        inode.dates[self.clock % inode.dates.len] = inode.date;
        inode.date = @intCast(self.clock);
        return inode.date;
    }

    pub fn accuse(self: *Machine, what: []const u8) void {
        self.medium.accuse(what);
    }

    // ---- ends

    /// What a process held is given back by the system; a forked child of it may live on, which has the
    /// mappings and no descriptor.
    pub fn reap(self: *Machine, process: *Process, has_child: bool) void {
        for (self.inodes.items) |inode| self.medium.mendMark(inode);
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

    pub fn closeOpening(self: *Machine, file: File) void {
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

    /// MADV_DONTNEED: what is mapped privately is the file's again, all other memory zero.
    pub fn dropPages(self: *Machine, address: usize, len: usize) void {
        var at = address;
        while (at < address + len) : (at += os.page_size) {
            const page: *[os.page_size]u8 = @ptrFromInt(at);
            @memset(page, 0);
            for (self.inodes.items) |inode| for (inode.mappings.items) |*mapping| {
                if (at < mapping.address or at >= mapping.address + mapping.len) continue;
                const from = mapping.offset + (at - mapping.address);
                const part: usize = @intCast(@min(os.page_size, inode.size -| from));
                @memcpy(page[0..part], inode.bytes.items[@intCast(from)..][0..part]);
            };
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
        for (self.inodes.items) |inode| if (inode.used) self.medium.settle(inode, chance, chance.uintAtMost(u8, 20));
        self.starts += 1;
        for (self.names.entries.items) |*entry| {
            if (std.mem.endsWith(u8, entry.name.slice(), "-new")) entry.inode.torn = true;
        }
        // Dates and notes of any moment may have been stored, whatever else was.
        for (self.inodes.items) |inode| if (inode.note.len > 0) {
            if (chance.boolean()) inode.date = inode.dates[chance.uintLessThan(usize, inode.dates.len)];
            if (chance.uintLessThan(u8, 4) == 0) inode.note = inode.notes[chance.uintLessThan(usize, inode.notes.len)];
        };
        self.power_lost = false;
    }

    /// A renaming is not sure yet.
    pub fn hasMoved(self: *const Machine) bool {
        for (self.changes.items) |each| if (each == .rename or each == .exchange) return true;
        return false;
    }

    /// Frees inodes that nothing names or has open.
    pub fn sweep(self: *Machine) void {
        for (self.inodes.items) |inode| inode.used = inode.sought > 0;
        for (self.names.entries.items) |entry| entry.inode.used = true;
        for (self.stored.entries.items) |entry| entry.inode.used = true;
        for (self.changes.items) |each| switch (each) {
            .link => |made| made.inode.used = true,
            .rename => |moved| moved.inode.used = true,
            .exchange => |both| for (both.inodes) |inode| {
                inode.used = true;
            },
            .unlink => {},
        };
        for (self.files.items) |opening| if (opening.inode) |inode| {
            inode.used = true;
        };
        for (self.inodes.items) |inode| if (!inode.used) {
            for (inode.unsure.items) |index| self.medium.forget(&inode.sectors.items[index]);
            inode.reset();
        };
    }

    pub fn newInode(self: *Machine) *Inode {
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
            for (self.inodes.items) |inode| if (inode.sought > 0 and inode.number == number) continue :search;
            return number;
        }
    }

    // ---- for the simulation itself

    pub fn create(self: *Machine, name: []const u8, bytes: []const u8) void {
        const inode = self.newInode();
        medium_.extend(inode, std.math.divCeil(usize, bytes.len, medium_.sector_len) catch unreachable);
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

    pub fn opened(self: *Machine, process: *Process, inode: ?*Inode, write: bool) i64 {
        const made: Opening = .{ .inode = inode, .process = process, .open = true, .write = write };
        for (self.files.items, 0..) |*opening, file| if (!opening.open and opening.mapped == 0) {
            opening.* = made;
            return @intCast(file);
        };
        self.files.append(gpa, made) catch unreachable;
        return @intCast(self.files.items.len - 1);
    }

    /// What a call has to do: all of it, nothing and fail, or something and fail.
    pub const Verdict = struct { errno: i64 = 0, effect: bool = true };

    /// Every call begins here: time passes, others run, things break.
    pub fn enter(self: *Machine, process: *Process, kind: Kind) Verdict {
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
        if (self.oneIn(self.stalls_one_in)) for (0..self.random().uintAtMost(usize, stall_turns_max)) |_| {
            fiber.yield();
            if (process.dead) return gone;
        };
        const syncs = kind == .sync or kind == .sync_dir or kind == .sync_moved;
        if (syncs and self.sync_turns_max > 0) for (0..self.random().uintAtMost(usize, self.sync_turns_max)) |_| {
            fiber.yield();
            if (process.dead) return gone;
        };
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
        if (process.fails_in > 0) {
            process.fails_in -= 1;
            if (process.fails_in == 0 and kind == .bytes) return self.refuse(process);
        }
        if (process.fails_on == kind) {
            process.fails_on = null;
            return self.refuse(process);
        }
        if (process.spared) return .{};
        const aimed = process.fails_one_in > 0 and syncs;
        const moved = kind == .sync_moved and self.moved_fails_one_in > 0;
        const fails_one_in = if (!aimed) process.fails_one_in else if (moved) self.moved_fails_one_in else self.sync_fails_one_in;
        if (self.oneIn(fails_one_in)) {
            if (aimed and self.crash_at != never and self.crash_after_failure > 0) {
                self.crash_at = self.steps + 1 + self.random().uintLessThan(u64, self.crash_after_failure);
                self.crash_on = null;
            }
            return self.refuse(process);
        }
        return .{};
    }

    pub fn refuse(self: *Machine, process: *Process) Verdict {
        process.noteFailure();
        self.failures += 1;
        const e: os.E = if (self.random().boolean()) .IO else .NOSPC;
        return .{ .errno = -@as(i64, @intFromEnum(e)), .effect = false };
    }

    /// Somebody replaces a base while its successor is written, or takes a path that was free.
    pub fn intrude(self: *Machine, process: *Process, base: []const u8) void {
        self.intrudes = false;
        const inode = self.newInode();
        const name: Name = .of(base);
        self.intruder = .{ .inode = inode, .name = name, .original = self.names.find(base), .process = process };
        self.names.put(name, inode);
        process.noteFailure();
    }

    pub fn endIntrusion(self: *Machine) void {
        const guest = self.intruder.?;
        self.intruder = null;
        if (guest.original) |inode| self.names.put(guest.name, inode) else self.names.remove(guest.name.slice());
    }

    /// A growing file on a full medium.
    pub fn noRoom(self: *Machine, process: *Process) ?i64 {
        if (!self.full) return null;
        process.noteFailure();
        return calls.no(.NOSPC);
    }
};
