//! The calls of a process of the simulated machine: the functions of its `Disk`.
//!
//! Invariant: every call that Linux may fail, interrupt or half do passes `Machine.enter`, which decides
//! whether it does here.

const std = @import("std");
const disk_ = @import("../disk.zig");
const os = @import("../../os/os.zig");
const real_disk = @import("../../os/disk.zig");
const fiber = @import("fiber.zig");
const machine_ = @import("machine.zig");
const medium_ = @import("medium.zig");
const Change = medium_.Change;
const File = disk_.File;
const Inode = medium_.Inode;
const Kind = machine_.Kind;
const Machine = machine_.Machine;
const Name = medium_.Name;
const Opening = machine_.Opening;
const Process = machine_.Process;
const gpa = std.heap.smp_allocator;

pub fn no(e: os.E) i64 {
    return -@as(i64, @intFromEnum(e));
}

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
    if (found != null and machine.again_one_in > 0 and call.process.hasOpen(inode) and machine.oneIn(machine.again_one_in)) {
        call.process.noteFailure();
        return no(.MFILE);
    }
    // Between finding a file and having it open others run: nobody can see then that it will be open.
    if (found != null and machine.oneIn(machine.switches_one_in)) {
        inode.sought += 1;
        const turns_max: usize = if (machine.stalls_one_in > 0) machine_.stall_turns_max else 60;
        const turns = if (machine.oneIn(4)) machine.random().uintAtMost(usize, turns_max) else 1;
        for (0..turns) |_| fiber.yield();
        inode.sought -= 1;
        if (call.process.dead) return no(.IO);
    }
    if (call.verdict.errno != 0) return call.verdict.errno;
    if (how.write) {
        inode.cut_haunted = false;
        inode.cut_other = false;
    }
    return machine.opened(call.process, inode, how.write);
}

/// What is written past the page cache is not on the medium before a sync either: its own cache and
/// the file's length are in between.
pub fn openDirect(c: ?*anyopaque, file: File) i64 {
    const call = begin(c, .bytes);
    if (call.verdict.errno != 0) return call.verdict.errno;
    if (call.machine.no_direct) return no(.INVAL);
    call.machine.directs += 1;
    return call.machine.opened(call.process, call.inode(file), true);
}

pub fn close(c: ?*anyopaque, file: File) void {
    const process = of(c);
    if (process.dead) return;
    if (openingOf(process, file).inode) |inode| process.machine.medium.mendMark(inode);
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
        // A write that fails, or whose process dies in it, may have done its first part, or all of it.
        if (!machine.oneIn(4)) len = machine.random().uintAtMost(usize, bytes.len);
    } else if (machine.oneIn(call.process.short_one_in)) len = 1 + machine.random().uintLessThan(usize, bytes.len);
    _ = machine.date(inode);
    machine.medium.store(inode, bytes[0..len], offset);
    flip(call, inode, offset, len);
    if (len > 0 and len == call.process.fails_after) {
        call.process.fails_after = 0;
        return machine.refuse(call.process).errno;
    }
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
    _ = machine.date(target);
    machine.medium.store(target, source.bytes.items[@intCast(at)..][0..part], to_at);
    flip(call, target, to_at, part);
    return @intCast(part);
}

/// A bit of what was just written stands otherwise in the file.
fn flip(call: Call, inode: *Inode, offset: u64, len: usize) void {
    const machine = call.machine;
    if (len == 0) return;
    const first = @min(offset, medium_.mark_len);
    const end = @min(offset + len, medium_.mark_len);
    if (inode.mark) |*mark| @memcpy(mark[first..end], inode.bytes.items[first..end]);
    if (!machine.oneIn(call.process.flips_one_in)) return;
    const at: usize = @intCast(offset + machine.random().uintLessThan(usize, len));
    if (at < medium_.mark_len and inode.mark == null) inode.mark = inode.bytes.items[0..medium_.mark_len].*;
    call.process.flipped = true;
    const other = [1]u8{inode.bytes.items[at] ^ 4};
    machine.medium.store(inode, &other, at);
}

pub fn date(c: ?*anyopaque, file: File) i64 {
    return of(c).machine.files.items[@intCast(file)].inode.?.date;
}

pub fn setDate(c: ?*anyopaque, file: File) i64 {
    const call = begin(c, .bytes);
    if (call.verdict.errno != 0) return call.verdict.errno;
    return call.machine.date(call.inode(file));
}

pub fn witness(c: ?*anyopaque, file: File) i64 {
    const machine = of(c).machine;
    return @as(i64, machine.starts) * 1000 + machine.files.items[@intCast(file)].inode.?.number;
}

pub fn setNote(c: ?*anyopaque, file: File, bytes: []const u8) i64 {
    const call = begin(c, .bytes);
    if (call.verdict.errno != 0) return call.verdict.errno;
    const inode = call.inode(file);
    inode.notes[call.machine.clock % inode.notes.len] = inode.note;
    inode.note.len = bytes.len;
    @memcpy(inode.note.bytes[0..bytes.len], bytes);
    return 0;
}

pub fn getNote(c: ?*anyopaque, file: File, into: []u8) i64 {
    const call = begin(c, .look);
    if (call.verdict.errno != 0) return call.verdict.errno;
    const note = &call.inode(file).note;
    if (note.len > into.len) return no(.RANGE);
    @memcpy(into[0..note.len], note.bytes[0..note.len]);
    return @intCast(note.len);
}

pub fn allocate(c: ?*anyopaque, file: File, offset: u64, len: u64) i64 {
    const call = begin(c, .bytes);
    call.say("allocate to {d} of {d}", .{ offset + len, call.inode(file).number });
    if (!call.verdict.effect) return call.verdict.errno;
    if (call.machine.no_allocate) return no(.OPNOTSUPP);
    const inode = call.inode(file);
    if (offset + len > inode.size) {
        _ = call.machine.date(inode);
        if (call.machine.noRoom(call.process)) |errno| return errno;
        call.machine.medium.resize(inode, offset + len);
    }
    return call.verdict.errno;
}

pub fn zero(c: ?*anyopaque, file: File, offset: u64, len: u64) i64 {
    const call = begin(c, .bytes);
    const machine = call.machine;
    const inode = call.inode(file);
    call.say("zero {d} bytes at {d} of {d}", .{ len, offset, inode.number });
    if (machine.no_allocate) return no(.OPNOTSUPP);
    if (call.process.dead and !call.verdict.effect) return call.verdict.errno;
    std.debug.assert(openingOf(call.process, file).write and offset + len <= inode.size);
    const done = if (call.verdict.errno != 0) machine.random().uintAtMost(u64, len) else len;
    const zeros = gpa.alloc(u8, @intCast(done)) catch unreachable;
    defer gpa.free(zeros);
    @memset(zeros, 0);
    _ = machine.date(inode);
    machine.medium.store(inode, zeros, offset);
    return call.verdict.errno;
}

pub fn truncate(c: ?*anyopaque, file: File, len: u64) i64 {
    const call = begin(c, .bytes);
    call.say("truncate {d} to {d}", .{ call.inode(file).number, len });
    if (!call.verdict.effect) return call.verdict.errno;
    if (!openingOf(call.process, file).write) call.machine.accuse("a file open for reading is truncated");
    _ = call.machine.date(call.inode(file));
    call.machine.medium.resize(call.inode(file), len);
    return call.verdict.errno;
}

pub fn sync(c: ?*anyopaque, file: File) i64 {
    const call = begin(c, .sync);
    call.say("sync {d}", .{call.inode(file).number});
    if (call.process.dead) return call.verdict.errno;
    call.machine.syncs += 1;
    call.machine.medium.syncInode(call.inode(file), call.verdict.errno != 0);
    return call.verdict.errno;
}

pub fn syncDir(c: ?*anyopaque, _: File) i64 {
    const call = begin(c, if (of(c).machine.hasMoved()) .sync_moved else .sync_dir);
    call.say("sync directory", .{});
    if (call.verdict.errno != 0) return call.verdict.errno;
    const machine = call.machine;
    if (machine.intrudes and machine.random().boolean()) for (machine.names.entries.items) |*entry| {
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
    // At the last moment, where nothing stood: whoever looked before cannot know.
    const free = machine.names.find(std.mem.span(to)) == null and std.mem.endsWith(u8, std.mem.span(from), "-new");
    if (machine.intrudes and free and !machine.no_exclusive_rename) machine.intrude(call.process, std.mem.span(to));
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
    // A log that is replaced by a log.
    const log = "-log-";
    machine.rooms += @intFromBool(replace and std.mem.indexOf(u8, std.mem.span(from), log) != null and std.mem.indexOf(u8, std.mem.span(to), log) != null);
    machine.changes.append(gpa, moved) catch unreachable;
    return call.verdict.errno;
}

pub fn exchange(c: ?*anyopaque, _: File, a: [*:0]const u8, b: [*:0]const u8) i64 {
    const call = begin(c, .names);
    const machine = call.machine;
    call.say("exchange {s} and {s}", .{ std.mem.span(a), std.mem.span(b) });
    if (!call.verdict.effect) return call.verdict.errno;
    if (machine.no_exchange) return no(.INVAL);
    if (machine.intruder) |guest| if (std.mem.eql(u8, guest.name.slice(), std.mem.span(b))) {
        machine.accuse("a file that somebody else put there is exchanged");
        machine.endIntrusion();
        return no(.NOENT);
    };
    const names = [2]Name{ .of(std.mem.span(a)), .of(std.mem.span(b)) };
    const swapped: Change = .{ .exchange = .{ .names = names, .inodes = .{
        machine.names.find(names[0].slice()) orelse return no(.NOENT),
        machine.names.find(names[1].slice()) orelse return no(.NOENT),
    } } };
    swapped.apply(&machine.names);
    machine.changes.append(gpa, swapped) catch unreachable;
    return call.verdict.errno;
}

/// As a lease for writing is granted: by the names and the other openings, whether they are open still
/// or only mapped. What this opening has mapped itself is not seen, nor who is about to open the file.
pub fn sole(c: ?*anyopaque, file: File) i64 {
    const call = begin(c, .look);
    const machine = call.machine;
    if (call.verdict.errno != 0) return call.verdict.errno;
    const inode = call.inode(file);
    var count: usize = 0;
    for (machine.names.entries.items) |*entry| count += @intFromBool(entry.inode == inode);
    for (machine.files.items, 0..) |*opening, other| {
        if (other != file and opening.inode == inode and (opening.open or opening.mapped > 0)) count += 1;
    }
    call.say("{d} {s} nobody else's", .{ inode.number, if (count == 1) "is" else "is not" });
    machine.soles += @intFromBool(count == 1);
    return @intFromBool(count == 1);
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
    if (machine.refuses_unlink) return no(.IO);
    if (machine.oneIn(machine.stays_one_in)) {
        call.process.noteFailure();
        return no(.IO);
    }
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

/// Pages of zeros are holes.
pub fn seek(c: ?*anyopaque, file: File, offset: u64, what: real_disk.Seek) i64 {
    if (what == .hole) return @intCast(offset);
    const bytes = openingOf(of(c), file).inode.?.bytes.items;
    const from: usize = @intCast(@min(offset, bytes.len));
    const found = std.mem.indexOfNone(u8, bytes[from..], &.{0}) orelse return no(.NXIO);
    return @intCast(@max(offset, std.mem.alignBackward(u64, from + found, os.page_size)));
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
