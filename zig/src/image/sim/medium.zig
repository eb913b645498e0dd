//! The files of the simulated machine: what running processes see of them, and what the medium may
//! hold of them when the power fails.
//!
//! Invariant: after a power cut each sector holds one of the values that were written to it since its
//! last successful sync, or the one from before; a file's length and the directory's names likewise.
//! A sync that failed takes none of them back, and later ones do not know of them any more, as Linux
//! does.

const std = @import("std");
const disk_ = @import("../disk.zig");
const os = @import("../../os/os.zig");
const Process = @import("machine.zig").Process;
const File = disk_.File;
const gpa = std.heap.smp_allocator;

pub const sector_len = 512;
const Sector = [sector_len]u8;

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
const Version = struct { before: u32, bytes: Sector, haunted: bool };

/// `haunted`: what it holds was written over once; a power cut brought it back, since the sync of what came
/// after it had failed.
const SectorState = struct { head: u32 = 0, dirty: bool = false, haunted: bool = false };

pub const Note = struct { bytes: [64]u8 = undefined, len: usize = 0 };

pub const Mapping = struct { process: *Process, file: File, offset: u64, address: usize, len: usize };

/// A file's first bytes tell whose it is.
pub const mark_len = 8;

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
    /// When it was changed last, and what is noted beside it; and what the medium may hold of both, which no
    /// sync is sure to store.
    date: i64 = 0,
    dates: [4]i64 = @splat(0),
    note: Note = .{},
    notes: [4]Note = @splat(.{}),
    mappings: std.ArrayList(Mapping) = .empty,
    used: bool = false,
    /// What was cut off since it was last opened for writing: something haunted, and something else.
    cut_haunted: bool = false,
    cut_other: bool = false,
    /// Bytes of its mark as they were meant, where they were written otherwise.
    mark: ?[mark_len]u8 = null,
    /// A power cut found it unfinished: what it holds is anything.
    torn: bool = false,
    /// Who found it by its name and is about to have it open.
    sought: u32 = 0,

    pub fn content(self: *const Inode) []u8 {
        return self.bytes.items[0..@intCast(self.size)];
    }

    pub const Behind = struct { haunted: bool = false, other: bool = false };

    /// What stands from `offset` on, whole sectors, apart from zeros and from a seal, which may come first.
    pub fn behind(self: *const Inode, offset: u64) Behind {
        const seal_len = 64;
        var found: Behind = .{};
        var at: usize = @intCast(offset);
        const end: usize = @intCast(self.size);
        while (at < end) {
            const next = @min(end, (at / sector_len + 1) * sector_len);
            const first = if (at == offset) @min(next, at + seal_len) else at;
            const haunted = self.sectors.items[at / sector_len].haunted;
            if (!std.mem.allEqual(u8, self.bytes.items[if (haunted) at else first..next], 0)) {
                if (haunted) found.haunted = true else found.other = true;
            }
            at = next;
        }
        return found;
    }

    pub fn deinit(self: *Inode) void {
        inline for (.{ &self.bytes, &self.sectors, &self.dirty, &self.unsure, &self.sizes, &self.mappings }) |list| list.deinit(gpa);
    }

    pub fn reset(self: *Inode) void {
        self.size = 0;
        inline for (.{ &self.bytes, &self.sectors, &self.dirty, &self.unsure, &self.sizes, &self.mappings }) |list| {
            list.clearRetainingCapacity();
        }
        self.size_dirty = false;
        self.mode = 0o600;
        self.lock = disk_.none;
        self.cut_haunted = false;
        self.cut_other = false;
        self.mark = null;
        self.torn = false;
        self.date = 0;
        self.dates = @splat(0);
        self.note = .{};
        self.notes = @splat(.{});
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

pub const Change = union(enum) {
    link: Entry,
    unlink: Name,
    rename: struct { from: Name, to: Name, inode: *Inode },
    exchange: struct { names: [2]Name, inodes: [2]*Inode },

    pub fn apply(self: *const Change, to: *Directory) void {
        switch (self.*) {
            .link => |made| to.put(made.name, made.inode),
            .unlink => |name| to.remove(name.slice()),
            .rename => |moved| {
                if (to.find(moved.from.slice()) == moved.inode) to.remove(moved.from.slice());
                to.put(moved.to, moved.inode);
            },
            // One transaction of the file system: both names or neither.
            .exchange => |both| for (both.names, 0..) |name, index| to.put(name, both.inodes[1 - index]),
        }
    }
};

/// The sectors' contents, and what became of them.
pub const Medium = struct {
    versions: std.ArrayList(Version) = .empty,
    versions_free: u32 = 0,
    /// What the engine must never do, seen from below.
    offence: ?[]const u8 = null,

    pub fn init() Medium {
        var self: Medium = .{};
        self.versions.append(gpa, undefined) catch unreachable;
        return self;
    }

    pub fn deinit(self: *Medium) void {
        self.versions.deinit(gpa);
    }

    pub fn accuse(self: *Medium, what: []const u8) void {
        if (self.offence == null) self.offence = what;
    }

    fn version(self: *Medium, before: u32, bytes: *const Sector, haunted: bool) u32 {
        const index = self.versions_free;
        const made: Version = .{ .before = before, .bytes = bytes.*, .haunted = haunted };
        if (index != 0) {
            self.versions_free = self.versions.items[index].before;
            self.versions.items[index] = made;
            return index;
        }
        self.versions.append(gpa, made) catch unreachable;
        return @intCast(self.versions.items.len - 1);
    }

    pub fn forget(self: *Medium, state: *SectorState) void {
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
    fn change(self: *Medium, inode: *Inode, index: usize, from: usize, bytes: []const u8) void {
        const state = &inode.sectors.items[index];
        const sector = inode.bytes.items[index * sector_len ..][0..sector_len];
        if (std.mem.eql(u8, sector[from..][0..bytes.len], bytes)) {
            if (state.head == 0) return;
        } else {
            if (isMapped(inode, index * sector_len + from, bytes.len)) self.accuse("a page that somebody has mapped is written over");
            if (state.head == 0) {
                state.head = self.version(0, sector, state.haunted);
                inode.unsure.append(gpa, @intCast(index)) catch unreachable;
            }
            @memcpy(sector[from..][0..bytes.len], bytes);
            state.haunted = false;
            state.head = self.version(state.head, sector, false);
        }
        if (state.dirty) return;
        state.dirty = true;
        inode.dirty.append(gpa, @intCast(index)) catch unreachable;
    }

    /// What somebody leaves who gives a file up, or dies, can be told by its mark, also when that was written
    /// otherwise: nobody could find out whose it is.
    pub fn mendMark(self: *Medium, inode: *Inode) void {
        const meant = inode.mark orelse return;
        inode.mark = null;
        if (inode.size < meant.len) return;
        const written: [mark_len]u8 = inode.bytes.items[0..mark_len].*;
        inode.bytes.items[0..mark_len].* = meant;
        var at = inode.sectors.items[0].head;
        while (at != 0) : (at = self.versions.items[at].before) {
            const mark = self.versions.items[at].bytes[0..mark_len];
            if (std.mem.eql(u8, mark, &written)) mark.* = meant;
        }
    }

    fn isMapped(inode: *const Inode, offset: u64, len: u64) bool {
        for (inode.mappings.items) |*mapping| {
            if (offset < mapping.offset + mapping.len and mapping.offset < offset + len) return true;
        }
        return false;
    }

    pub fn resize(self: *Medium, inode: *Inode, size: u64) void {
        if (size == inode.size) return;
        if (inode.sizes.items.len == 0) inode.sizes.append(gpa, inode.size) catch unreachable;
        inode.sizes.append(gpa, size) catch unreachable;
        inode.size_dirty = true;
        const sectors: usize = @intCast(std.math.divCeil(u64, size, sector_len) catch unreachable);
        if (size < inode.size) {
            for (inode.mappings.items) |*mapping| {
                if (mapping.offset + mapping.len > std.mem.alignForward(u64, size, os.page_size)) self.accuse("a page that somebody has mapped is cut away");
            }
            const behind = inode.behind(size);
            inode.cut_haunted = inode.cut_haunted or behind.haunted;
            inode.cut_other = inode.cut_other or behind.other;
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

    pub fn store(self: *Medium, inode: *Inode, bytes: []const u8, offset: u64) void {
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

    pub fn syncInode(self: *Medium, inode: *Inode, fails: bool) void {
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

    /// The power fails: what the medium holds of a file is decided. The higher `bias`, the more of what
    /// was written last is there.
    pub fn settle(self: *Medium, inode: *Inode, chance: std.Random, bias: u8) void {
        for (inode.unsure.items) |index| {
            const state = &inode.sectors.items[index];
            var count: u32 = 0;
            var at = state.head;
            while (at != 0) : (at = self.versions.items[at].before) count += 1;
            if (count == 0) continue;
            var back = if (chance.uintLessThan(u8, 20) < bias) 0 else chance.uintLessThan(u32, count);
            const forgotten = back > 0 and !state.dirty;
            at = state.head;
            while (back > 0) : (back -= 1) at = self.versions.items[at].before;
            state.haunted = forgotten or self.versions.items[at].haunted;
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
};

pub fn extend(inode: *Inode, sectors: usize) void {
    if (sectors <= inode.sectors.items.len) return;
    inode.bytes.appendNTimes(gpa, 0, (sectors - inode.sectors.items.len) * sector_len) catch unreachable;
    inode.sectors.appendNTimes(gpa, .{}, sectors - inode.sectors.items.len) catch unreachable;
}
