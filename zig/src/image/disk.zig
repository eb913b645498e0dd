//! The seam between the engine and the world: every byte, name, lock, random number and moment that
//! the engine sees comes through a `Disk`, so that the same engine runs on a simulated one.
//!
//! Invariant: nothing in this folder reaches a file in any other way. A vtable function answers with
//! a value or the negative of an error number and may do less than asked; the methods here go on
//! until all is done.

const std = @import("std");
const errors = @import("../errors.zig");
const real_disk = @import("../os/disk.zig");
const linux = @import("../os/os.zig");

pub const File = real_disk.File;
pub const Stat = real_disk.Stat;
pub const How = real_disk.How;
pub const none = real_disk.none;
pub const cwd = real_disk.cwd;
pub const errnoName = real_disk.errnoName;

/// What a failed operation answers: the error number.
pub const Errno = u32;

pub const Disk = struct {
    context: ?*anyopaque,
    vtable: *const VTable,

    pub const VTable = struct {
        open: @TypeOf(&real_disk.open),
        openDirect: @TypeOf(&real_disk.openDirect),
        close: @TypeOf(&real_disk.close),
        stat: @TypeOf(&real_disk.stat),
        statAt: @TypeOf(&real_disk.statAt),
        readLink: @TypeOf(&real_disk.readLink),
        read: @TypeOf(&real_disk.read),
        write: @TypeOf(&real_disk.write),
        copy: @TypeOf(&real_disk.copy),
        allocate: @TypeOf(&real_disk.allocate),
        truncate: @TypeOf(&real_disk.truncate),
        sync: @TypeOf(&real_disk.sync),
        syncDir: @TypeOf(&real_disk.syncDir),
        startWriting: @TypeOf(&real_disk.startWriting),
        lock: @TypeOf(&real_disk.lock),
        unlock: @TypeOf(&real_disk.unlock),
        locked: @TypeOf(&real_disk.locked),
        rename: @TypeOf(&real_disk.rename),
        link: @TypeOf(&real_disk.link),
        unlink: @TypeOf(&real_disk.unlink),
        setMode: @TypeOf(&real_disk.setMode),
        list: @TypeOf(&real_disk.list),
        map: @TypeOf(&real_disk.map),
        holesCost: @TypeOf(&real_disk.holesCost),
        seek: @TypeOf(&real_disk.seek),
        mapsFree: @TypeOf(&real_disk.mapsFree),
        pause: @TypeOf(&real_disk.pause),
        now: @TypeOf(&real_disk.now),
        random: @TypeOf(&real_disk.random),
        // A disk without it reads when it is asked to.
        willRead: @TypeOf(&real_disk.willRead) = &lacking.willRead,
        // A disk without these two keeps no spare file.
        exchange: @TypeOf(&real_disk.exchange) = &lacking.exchange,
        sole: @TypeOf(&real_disk.sole) = &lacking.sole,
        // A disk without it keeps no log's space.
        zero: @TypeOf(&real_disk.zero) = &lacking.zero,
        // Only shared heaps ask for these.
        lockShared: @TypeOf(&real_disk.lockShared) = &lacking.lockShared,
        staysInPlace: @TypeOf(&real_disk.staysInPlace) = &lacking.staysInPlace,
        date: @TypeOf(&real_disk.date) = &lacking.number,
        setDate: @TypeOf(&real_disk.setDate) = &lacking.number,
        witness: @TypeOf(&real_disk.witness) = &lacking.number,
        setNote: @TypeOf(&real_disk.setNote) = &lacking.setNote,
        getNote: @TypeOf(&real_disk.getNote) = &lacking.getNote,
    };

    const lacking = struct {
        fn willRead(_: ?*anyopaque, _: File, _: u64, _: u64) void {}
        fn exchange(_: ?*anyopaque, _: File, _: [*:0]const u8, _: [*:0]const u8) i64 {
            return -E(.INVAL);
        }
        fn sole(_: ?*anyopaque, _: File) i64 {
            return 0;
        }
        fn zero(_: ?*anyopaque, _: File, _: u64, _: u64) i64 {
            return -E(.OPNOTSUPP);
        }
        fn lockShared(_: ?*anyopaque, _: File) i64 {
            return 0;
        }
        fn staysInPlace(_: ?*anyopaque, _: File) i64 {
            return 1;
        }
        fn number(_: ?*anyopaque, _: File) i64 {
            return -E(.OPNOTSUPP);
        }
        fn setNote(_: ?*anyopaque, _: File, _: []const u8) i64 {
            return -E(.OPNOTSUPP);
        }
        fn getNote(_: ?*anyopaque, _: File, _: []u8) i64 {
            return -E(.OPNOTSUPP);
        }
    };

    /// The files of this machine.
    pub const real: Disk = .{ .context = null, .vtable = &vtableOf(real_disk) };

    /// The vtable of a namespace that declares the functions.
    pub fn vtableOf(comptime namespace: type) VTable {
        var vtable: VTable = undefined;
        inline for (@typeInfo(VTable).@"struct".fields) |field| {
            @field(vtable, field.name) = if (@hasDecl(namespace, field.name))
                &@field(namespace, field.name)
            else
                field.defaultValue() orelse @compileError("a disk must have " ++ field.name);
        }
        return vtable;
    }

    pub const OpenResult = union(enum) { file: File, errno: Errno };

    pub fn open(self: Disk, dir: File, name: [*:0]const u8, how: How) OpenResult {
        const result = self.vtable.open(self.context, dir, name, how);
        return if (result < 0) .{ .errno = errnoOf(result) } else .{ .file = @intCast(result) };
    }

    /// The same file opened once more, for writing whole pages past the page cache; null where that
    /// cannot be.
    pub fn openDirect(self: Disk, file: File) ?File {
        const result = self.vtable.openDirect(self.context, file);
        return if (result < 0) null else @intCast(result);
    }

    pub fn close(self: Disk, file: *File) void {
        if (file.* >= 0) self.vtable.close(self.context, file.*);
        file.* = none;
    }

    pub fn stat(self: Disk, file: File, out: *Stat) ?Errno {
        return failed(self.vtable.stat(self.context, file, out));
    }

    /// The error number when the name cannot be looked at.
    pub fn statAt(self: Disk, dir: File, name: [*:0]const u8, out: *Stat) ?Errno {
        return failed(self.vtable.statAt(self.context, dir, name, out));
    }

    /// Length of the link's text, or null when the name is no link.
    pub fn readLink(self: Disk, dir: File, name: [*:0]const u8, buffer: []u8) ?usize {
        const result = self.vtable.readLink(self.context, dir, name, buffer);
        return if (result < 0) null else @intCast(result);
    }

    /// Part of the file will be read soon; promises nothing.
    pub fn willRead(self: Disk, file: File, offset: u64, len: u64) void {
        self.vtable.willRead(self.context, file, offset, len);
    }

    /// Fills `buffer`; a file that ends before is EIO with `short` set.
    pub fn readAll(self: Disk, file: File, buffer: []u8, offset: u64) ?Errno {
        var done: usize = 0;
        while (done < buffer.len) {
            const result = self.vtable.read(self.context, file, buffer[done..], offset + done);
            if (result < 0) return errnoOf(result);
            if (result == 0) return ended;
            done += @intCast(result);
        }
        return null;
    }

    pub fn writeAll(self: Disk, file: File, bytes: []const u8, offset: u64) ?Errno {
        var done: usize = 0;
        while (done < bytes.len) {
            const result = self.vtable.write(self.context, file, bytes[done..], offset + done);
            if (result < 0) return errnoOf(result);
            if (result == 0) return errnoOf(-E(.IO));
            done += @intCast(result);
        }
        return null;
    }

    /// Copies between files, in the kernel where it can, through `buffer` where it cannot.
    pub fn copyAll(self: Disk, from: File, from_offset: u64, to: File, to_offset: u64, len: u64, buffer: []u8) ?Errno {
        var done: u64 = 0;
        var in_kernel = true;
        while (done < len) {
            if (in_kernel) {
                const result = self.vtable.copy(self.context, from, from_offset + done, to, to_offset + done, len - done);
                if (result > 0) {
                    done += @intCast(result);
                    continue;
                }
                const errno = errnoOf(result);
                if (result < 0 and isLack(errno)) return errno;
                in_kernel = false;
            }
            const part = buffer[0..@min(buffer.len, len - done)];
            if (self.readAll(from, part, from_offset + done)) |errno| return errno;
            if (self.writeAll(to, part, to_offset + done)) |errno| return errno;
            done += part.len;
        }
        return null;
    }

    /// A file system without preallocation is no failure: writing then finds out what there is.
    pub fn allocate(self: Disk, file: File, offset: u64, len: u64) ?Errno {
        const errno = failed(self.vtable.allocate(self.context, file, offset, len)) orelse return null;
        return if (isLack(errno) or errno == code(.IO)) errno else null;
    }

    /// Fills a part of the file with zeros where its space can stay its own; else it fails.
    pub fn zero(self: Disk, file: File, offset: u64, len: u64) ?Errno {
        return failed(self.vtable.zero(self.context, file, offset, len));
    }

    pub fn truncate(self: Disk, file: File, len: u64) ?Errno {
        return failed(self.vtable.truncate(self.context, file, len));
    }

    pub fn sync(self: Disk, file: File) ?Errno {
        return failed(self.vtable.sync(self.context, file));
    }

    pub fn syncDir(self: Disk, dir: File) ?Errno {
        return failed(self.vtable.syncDir(self.context, dir));
    }

    pub fn startWriting(self: Disk, file: File, offset: u64, len: u64) void {
        self.vtable.startWriting(self.context, file, offset, len);
    }

    pub const Locking = union(enum) { locked, busy, errno: Errno };

    pub fn lock(self: Disk, file: File) Locking {
        return locking(self.vtable.lock(self.context, file));
    }

    /// The lock of a reader that no writer may work beside.
    pub fn lockShared(self: Disk, file: File) Locking {
        return locking(self.vtable.lockShared(self.context, file));
    }

    fn locking(result: i64) Locking {
        const errno = failed(result) orelse return .locked;
        return if (errno == code(.AGAIN)) .busy else .{ .errno = errno };
    }

    /// Unlocks and closes a file that was locked here.
    pub fn release(self: Disk, file: *File) void {
        if (file.* >= 0) self.vtable.unlock(self.context, file.*);
        self.close(file);
    }

    pub fn lockedByAnother(self: Disk, file: File) bool {
        return self.vtable.locked(self.context, file) > 0;
    }

    pub fn rename(self: Disk, dir: File, from: [*:0]const u8, to: [*:0]const u8, replace: bool) ?Errno {
        return failed(self.vtable.rename(self.context, dir, from, to, replace));
    }

    /// Lets two names change places; not every file system can.
    pub fn exchange(self: Disk, dir: File, a: [*:0]const u8, b: [*:0]const u8) ?Errno {
        return failed(self.vtable.exchange(self.context, dir, a, b));
    }

    /// True when nobody but this opening can read the file. False where that is not known.
    pub fn isSole(self: Disk, file: File) bool {
        return self.vtable.sole(self.context, file) > 0;
    }

    pub fn link(self: Disk, dir: File, from: [*:0]const u8, to: [*:0]const u8) ?Errno {
        return failed(self.vtable.link(self.context, dir, from, to));
    }

    pub fn unlink(self: Disk, dir: File, name: [*:0]const u8) ?Errno {
        return failed(self.vtable.unlink(self.context, dir, name));
    }

    pub fn setMode(self: Disk, file: File, mode: u16) ?Errno {
        return failed(self.vtable.setMode(self.context, file, mode));
    }

    pub fn list(self: Disk, dir: File, context: *anyopaque, visit: real_disk.Visit) ?Errno {
        return failed(self.vtable.list(self.context, dir, context, visit));
    }

    pub fn map(self: Disk, file: File, offset: u64, address: usize, len: usize) ?Errno {
        return failed(self.vtable.map(self.context, file, offset, address, len));
    }

    /// Whether storing to what has room needs no more of it.
    pub fn staysInPlace(self: Disk, file: File) bool {
        return self.vtable.staysInPlace(self.context, file) > 0;
    }

    /// When the file was changed last, in nanoseconds; null where that cannot be told.
    pub fn date(self: Disk, file: File) ?i64 {
        return known(self.vtable.date(self.context, file));
    }

    /// Dates the file's last change to a moment at which the kernel dates nothing, and gives it.
    pub fn setDate(self: Disk, file: File) ?i64 {
        return known(self.vtable.setDate(self.context, file));
    }

    /// A number that stays while nothing of what the page cache holds of the file is lost; null where
    /// that cannot be told.
    pub fn witness(self: Disk, file: File) ?i64 {
        return known(self.vtable.witness(self.context, file));
    }

    fn known(result: i64) ?i64 {
        return if (result > 0) result else null;
    }

    /// Keeps a few bytes beside the file, without dating it. They survive the process; whether they
    /// survive the system is not known.
    pub fn setNote(self: Disk, file: File, bytes: []const u8) void {
        _ = self.vtable.setNote(self.context, file, bytes);
    }

    /// True when there are such bytes, of just that length.
    pub fn getNote(self: Disk, file: File, into: []u8) bool {
        return self.vtable.getNote(self.context, file, into) == into.len;
    }

    pub fn holesCost(self: Disk, file: File) bool {
        return self.vtable.holesCost(self.context, file) > 0;
    }

    /// The first offset at or after `offset` that holds data; null when none follows.
    pub fn nextData(self: Disk, file: File, offset: u64) ?u64 {
        const result = self.vtable.seek(self.context, file, offset, .data);
        return if (result < 0) null else @intCast(result);
    }

    /// Where what may hold something begins, at or after `offset`: before it the file reads as zeros.
    pub fn zerosUntil(self: Disk, file: File, offset: u64, end: u64) u64 {
        const result = self.vtable.seek(self.context, file, offset, .data);
        if (result == -E(.NXIO)) return end;
        if (result < 0) return offset;
        return @min(end, @max(offset, std.mem.alignBackward(u64, @intCast(result), linux.page_size)));
    }

    pub fn nextHole(self: Disk, file: File, offset: u64) ?u64 {
        const result = self.vtable.seek(self.context, file, offset, .hole);
        return if (result < 0) null else @intCast(result);
    }

    pub fn mapsFree(self: Disk) u64 {
        return self.vtable.mapsFree(self.context);
    }

    pub fn pause(self: Disk, ns: u64) void {
        self.vtable.pause(self.context, ns);
    }

    pub fn now(self: Disk) u64 {
        return self.vtable.now(self.context);
    }

    pub fn randomWord(self: Disk) u64 {
        var word: u64 = 0;
        while (word == 0) self.vtable.random(self.context, std.mem.asBytes(&word));
        return word;
    }

    pub fn randomId(self: Disk) u128 {
        return @as(u128, self.randomWord()) << 64 | self.randomWord();
    }

    /// True when `name` in `dir` is the inode that `as` describes.
    pub fn names(self: Disk, dir: File, name: [*:0]const u8, as: Stat) Named {
        var found: Stat = .{};
        return self.namesNow(dir, name, as, &found);
    }

    /// The same, and what the name has now.
    pub fn namesNow(self: Disk, dir: File, name: [*:0]const u8, as: Stat, out: *Stat) Named {
        var found: Stat = .{};
        defer out.* = found;
        if (self.statAt(dir, name, &found)) |errno| {
            return if (errno == code(.NOENT)) .free else .{ .errno = errno };
        }
        return if (found.device == as.device and found.inode == as.inode) .same else .other;
    }

    pub const Named = union(enum) { same, other, free, errno: Errno };
};

/// Stands for "the file ended before"; no system uses the number.
pub const ended: Errno = 4000;

pub fn code(comptime e: linux.E) Errno {
    return @intFromEnum(e);
}

fn E(comptime e: linux.E) i64 {
    return @intFromEnum(e);
}

fn errnoOf(result: i64) Errno {
    return @intCast(-@max(result, -0x7fff_ffff));
}

fn failed(result: i64) ?Errno {
    return if (result < 0) errnoOf(result) else null;
}

/// The medium has no room, or the caller may not have more of it.
pub fn isLack(errno: Errno) bool {
    return errno == code(.NOSPC) or errno == code(.DQUOT) or errno == code(.FBIG);
}

/// The error code that an error number means to a caller.
pub fn codeOf(errno: Errno) errors.Code {
    if (isLack(errno)) return .NO_SPACE;
    if (errno == code(.NOENT) or errno == code(.NOTDIR)) return .NOT_FOUND;
    if (errno == code(.EXIST)) return .EXISTS;
    if (errno == code(.ACCES) or errno == code(.PERM)) return .PERMISSION;
    if (errno == code(.ROFS)) return .READ_ONLY;
    if (errno == code(.NOMEM)) return .OUT_OF_MEMORY;
    if (errno == code(.NAMETOOLONG)) return .INVALID_ARGUMENT;
    if (errno == code(.ISDIR)) return .NOT_AN_IMAGE;
    return .IO;
}

/// Records a failure whose code is known at run time only.
pub const failAs = errors.failAs;

/// Records a failed disk operation: `action` says what was being done, as "Cannot sync".
pub fn failErrno(errno: Errno, path: []const u8, comptime action: []const u8) errors.Error {
    if (errno == ended) return failAs(.CORRUPT, .{ .path = path }, action ++ " \"{s}\": the file ends too early", .{path});
    return failAs(codeOf(errno), .{ .path = path, .errno = errno }, action ++ " \"{s}\": {s} ({s})", .{
        path, textOf(errno), errnoName(errno),
    });
}

fn textOf(errno: Errno) []const u8 {
    if (errno == code(.FBIG)) return "the file would be larger than this process, or the file system, may make one";
    if (errno == code(.MFILE)) return "this process may have no more files open; raise its limit (ulimit -n), or close some";
    if (errno == code(.NFILE)) return "the machine may have no more files open; raise fs.file-max (sysctl)";
    return switch (codeOf(errno)) {
        .NO_SPACE => "no room is left there, free some and try again",
        .NOT_FOUND => "it does not exist",
        .EXISTS => "it exists already",
        .PERMISSION => "this process may not do that",
        .READ_ONLY => "the file system is read-only",
        .OUT_OF_MEMORY => "no memory, or too many mappings",
        .INVALID_ARGUMENT => "the name is too long",
        .NOT_AN_IMAGE => "it is a directory",
        else => "the system answered with an error",
    };
}
