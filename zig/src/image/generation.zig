//! A base and its log as open files, and what they say: identity, lines, runs, records. Reading
//! trusts nothing: every length and offset is checked before it is used, and no more memory is taken
//! than the files' sizes explain.
//!
//! Invariant: `records` are whole, in the order of the log, each one's parent is the base's commit
//! or an earlier record; they and the base never change while a generation is open (records are only
//! appended). `log_end` is where the next record goes.

const os = @import("../os/os.zig");
const std = @import("std");
const errors = @import("../errors.zig");
const format = @import("format.zig");
const disk_ = @import("disk.zig");
const names = @import("names.zig");
const shared_file = @import("shared_file.zig");
const plant = @import("../plant.zig");
const reading_ = @import("reading.zig");
const history = @import("history.zig");
const Disk = disk_.Disk;
const File = disk_.File;
const Line = format.Line;
const PageRange = @import("page_set.zig").PageRange;
const failAs = disk_.failAs;
const page_size = format.page_size;

/// Of buffers on the stack: a thread of musl's has 128 KiB.
pub const chunk_len = 16 * 1024;

pub const Record = struct {
    offset: u64,
    /// Bytes to the next record.
    len: u64,
    sequence: u64,
    commit: format.CommitId,
    parent: format.CommitId,
    epoch: u64,
    line: u64,
    time: u64,
    checksum: u64,
    heap: format.Identity,
    lines: []const Line,
    runs: []const PageRange,
    holes: []const PageRange,
    sums: []const u64,

    pub fn pagesOffset(self: *const Record) u64 {
        return self.offset + page_size;
    }

    /// Where its footer ends: the zeros behind it need not be there.
    fn wholeEnd(self: *const Record) u64 {
        const tables = self.lines.len * @sizeOf(Line) + (self.runs.len + self.holes.len) * @sizeOf(PageRange) + self.sums.len * 8;
        return self.pagesOffset() + self.sums.len * page_size + std.mem.alignForward(u64, tables, 16) + @sizeOf(format.Footer);
    }

    pub fn head(self: *const Record) history.Head {
        return .{ .heap = self.heap.uuid, .line = self.line, .epoch = self.epoch, .commit = self.commit };
    }
};

/// A record that is broken although later ones are whole: not a torn tail.
pub const Damage = struct {
    sequence: u64,
    /// Of the last commit that is whole.
    epoch_before: u64,
};

/// A commit of a generation: the base's, or a record's.
pub const Point = union(enum) {
    base,
    record: usize,
};

pub const Generation = struct {
    arena: std.heap.ArenaAllocator = .init(os.page_allocator),
    base: File = disk_.none,
    base_stat: disk_.Stat = .{},
    header: *format.BaseHeader = undefined,
    lines: []const Line = &.{},
    runs: []const PageRange = &.{},
    /// None when the base was opened without its log (`recover`).
    log: File = disk_.none,
    log_stat: disk_.Stat = .{},
    log_name: names.Name = .{},
    records: std.ArrayList(Record) = .empty,
    log_end: u64 = 0,
    log_size: u64 = 0,
    chain: u64 = 0,
    /// Up to here zeros of a record that was synced stand behind `log_end` (but for a seal): what is
    /// written over them needs no new space, and its sync no journal of the file system.
    zeros_end: u64 = 0,
    /// Up to here the log has space, which reads as zeros.
    room_end: u64 = 0,
    /// It reads as what another log held, and is a `tail`.
    stale: bool = false,
    /// Something lies behind `log_end` that has to be cut before the next append.
    tail: bool = false,
    /// That something was an unfinished record.
    dropped: bool = false,
    /// The last record is known to be on the medium.
    sealed: bool = false,
    damage: ?Damage = null,

    pub fn create() errors.Error!*Generation {
        const self = os.page_allocator.create(Generation) catch return outOfMemory("");
        self.* = .{};
        self.header = self.arena.allocator().create(format.BaseHeader) catch {
            self.destroy(undefined);
            return outOfMemory("");
        };
        return self;
    }

    /// Up to here the log must be there.
    pub fn logNeeded(self: *const Generation) u64 {
        return if (self.records.getLastOrNull()) |record| record.wholeEnd() else page_size;
    }

    /// The log ends at its last record, or where an attempt goes on.
    pub fn forgetZeros(self: *Generation) void {
        self.zeros_end = 0;
        self.room_end = 0;
        self.stale = false;
    }

    /// Gives up the writer's locks.
    pub fn release(self: *Generation, disk: Disk) void {
        disk.release(&self.base);
        disk.release(&self.log);
    }

    /// Another opening of the same file to map from: a mapping keeps its opening alive, and with it a
    /// lock that would outlive the image, in forked children too.
    pub fn openToMap(disk: Disk, place: names.Place, name: names.Name, as: disk_.Stat) ?File {
        if (plant.is(.r7_mapping_keeps_lock)) return null;
        var file = switch (disk.open(place.dir, name.z(), .{})) {
            .file => |opened| opened,
            .errno => return null,
        };
        var stat: disk_.Stat = .{};
        const failed = disk.stat(file, &stat) != null;
        if (!failed and stat.device == as.device and stat.inode == as.inode) return file;
        disk.close(&file);
        return null;
    }

    /// Closes the files that are still open here.
    pub fn destroy(self: *Generation, disk: Disk) void {
        disk.close(&self.base);
        disk.close(&self.log);
        self.arena.deinit();
        os.page_allocator.destroy(self);
    }

    /// After the sync of a long last record: spares the next opening from checking its pages and
    /// writing them again. Nothing depends on its being written.
    pub fn sealLast(self: *Generation, disk: Disk, record_len_min: u64) void {
        if (self.records.items.len == 0) return;
        if (self.records.items[self.records.items.len - 1].len < record_len_min) return;
        const seal = self.sealOfLast();
        // No tail: the next record's first page covers all of it.
        self.log_size = @max(self.log_size, self.log_end + @sizeOf(format.Seal));
        _ = disk.writeAll(self.log, std.mem.asBytes(&seal), self.log_end);
    }

    /// The one seal that may stand behind the last record.
    fn sealOfLast(self: *const Generation) format.Seal {
        const record = &self.records.items[self.records.items.len - 1];
        var seal: format.Seal = .{
            .salt = self.header.salt,
            .offset = self.log_end,
            .sequence = record.sequence,
            .record = record.checksum,
        };
        seal.seal();
        return seal;
    }

    pub fn last(self: *const Generation) Point {
        const count = self.records.items.len;
        return if (count == 0) .base else .{ .record = count - 1 };
    }

    pub fn find(self: *const Generation, commit: format.CommitId) ?Point {
        var at = self.records.items.len;
        while (at > 0) {
            at -= 1;
            if (self.records.items[at].commit == commit) return .{ .record = at };
        }
        return if (self.header.commit == commit) .base else null;
    }

    pub fn parentOf(self: *const Generation, point: Point) ?Point {
        return switch (point) {
            .base => null,
            .record => |index| {
                const parent = self.records.items[index].parent;
                // Nearly always the one before.
                if (index > 0 and self.records.items[index - 1].commit == parent) return .{ .record = index - 1 };
                return self.find(parent);
            },
        };
    }

    pub fn headOf(self: *const Generation, point: Point) history.Head {
        return switch (point) {
            .base => .{
                .heap = self.header.heap.uuid,
                .line = self.header.line,
                .epoch = self.header.epoch,
                .commit = self.header.commit,
            },
            .record => |index| self.records.items[index].head(),
        };
    }

    pub fn identityOf(self: *const Generation, point: Point) format.Identity {
        return switch (point) {
            .base => self.header.heap,
            .record => |index| self.records.items[index].heap,
        };
    }

    pub fn epochMax(self: *const Generation) u64 {
        var max = @max(self.header.epoch_max, self.header.epoch);
        for (self.records.items) |record| max = @max(max, record.epoch);
        return max;
    }

    pub fn layout(self: *const Generation) format.BaseHeader.Layout {
        return self.header.layout().?;
    }

    /// Bytes of the log that hold records.
    pub fn logBytes(self: *const Generation) u64 {
        return self.log_end -| page_size;
    }

    // ---- reading a base

    /// What makes reading many checksums quicker: another thread, another opening of the base to map from.
    pub const Help = struct { thread: bool = false, map: File = disk_.none };

    /// Reads and checks header, lines, runs and page checksums of the open file `base`.
    pub fn loadBase(self: *Generation, disk: Disk, path: []const u8, help: Help) errors.Error!void {
        const size = self.base_stat.size;
        const header_bytes = std.mem.asBytes(self.header);
        if (size < page_size) {
            var magic: u64 = 0;
            if (size >= 8 and disk.readAll(self.base, std.mem.asBytes(&magic), 0) == null and magic == format.base_magic) {
                return corrupt(path, "it ends within its header");
            }
            return failAs(.NOT_AN_IMAGE, .{ .path = path }, "Cannot open \"{s}\": {s}", .{
                path, if (size == 0) "it is empty" else "it is too short for an image",
            });
        }
        if (disk.readAll(self.base, header_bytes, 0)) |errno| return disk_.failErrno(errno, path, "Cannot read image");
        const header = self.header;
        if (header.magic != format.base_magic) {
            const what = if (header.magic == format.log_magic)
                "it is the log of an image; name the base"
            else if (header.magic == shared_file.magic)
                "it holds a shared heap; open it with `shared: true`"
            else
                "it is no image of a heap";
            return failAs(.NOT_AN_IMAGE, .{ .path = path }, "Cannot open \"{s}\": {s}", .{ path, what });
        }
        if (header.version != format.version) {
            return failAs(.BAD_VERSION, .{ .path = path }, "Cannot open image \"{s}\": format version is {d}, this library reads {d}", .{ path, header.version, format.version });
        }
        if (!header.isSealed()) return corrupt(path, "its header does not match its checksum");
        if (header.page_size != page_size) return corrupt(path, "its page size is not 4,096");
        if (!header.heap.isSane()) return corrupt(path, "its heap's address or sizes are impossible");
        if (header.epoch > format.epoch_limit or header.epoch_max > format.epoch_limit) return corrupt(path, "its epoch number is impossible");
        const at = header.layout() orelse return corrupt(path, "its counts are impossible");
        if (at.end != size) return corrupt(path, "its length is not what its header says");

        const allocator = self.arena.allocator();
        const lines = allocator.alloc(Line, header.line_count) catch return outOfMemory(path);
        const runs = allocator.alloc(PageRange, header.run_count) catch return outOfMemory(path);
        const line_bytes = std.mem.sliceAsBytes(lines);
        const run_bytes = std.mem.sliceAsBytes(runs);
        if (disk.readAll(self.base, line_bytes, at.lines)) |errno| return disk_.failErrno(errno, path, "Cannot read image");
        if (disk.readAll(self.base, run_bytes, at.runs)) |errno| return disk_.failErrno(errno, path, "Cannot read image");
        var hasher = format.Hasher.init(0);
        hasher.update(line_bytes);
        hasher.update(run_bytes);
        if (hasher.final() != header.index_checksum) return corrupt(path, "its index does not match its checksum");
        const total = format.checkRanges(runs, header.heap.pages()) orelse return corrupt(path, "its index is out of order");
        if (total != header.page_count) return corrupt(path, "its index does not add up");
        var reading: reading_.Reading = undefined;
        var sums: Sums = .{ .generation = self, .disk = disk };
        if (help.thread and reading.start(disk, self.base, help.map, at.sums, header.page_count * 8)) sums.reading = &reading;
        defer if (sums.reading != null) reading.end();
        while (try sums.next(path)) |_| {}
        self.lines = lines;
        self.runs = runs;
    }

    // ---- reading a log

    pub const LogState = enum { whole, absent, foreign };

    /// Opens the log that the base names. `absent` and `foreign` are the caller's to judge (R8).
    pub fn openLog(self: *Generation, disk: Disk, place: names.Place, write: bool, path: []const u8) errors.Error!LogState {
        self.log_name = place.name.log(self.header.log_name);
        self.log = switch (disk.open(place.dir, self.log_name.z(), .{ .write = write })) {
            .file => |file| file,
            .errno => |errno| {
                if (errno == disk_.code(.NOENT)) return .absent;
                if (errno == disk_.code(.LOOP)) return .foreign;
                return disk_.failErrno(errno, path, "Cannot open the log of image");
            },
        };
        if (disk.stat(self.log, &self.log_stat)) |errno| return disk_.failErrno(errno, path, "Cannot read the log of image");
        const stat = self.log_stat;
        if (stat.kind != .regular or stat.owner != self.base_stat.owner) return .foreign;
        if (stat.size < page_size) return .absent;
        var first: format.LogHeader = undefined;
        if (disk.readAll(self.log, std.mem.asBytes(&first), 0)) |errno| return disk_.failErrno(errno, path, "Cannot read the log of image");
        if (plant.is(.r8_foreign_log)) {
            first.salt = self.header.salt;
            first.name = self.header.log_name;
            first.image = self.header.image;
            first.seal();
        }
        if (first.magic != format.log_magic or first.version != format.version or !first.isSealed() or
            first.salt != self.header.salt or first.name != self.header.log_name or
            !std.mem.eql(u8, &first.image, &self.header.image)) return .foreign;
        self.chain = first.checksum;
        self.log_end = page_size;
        self.log_size = stat.size;
        return .whole;
    }

    /// Reads the records from `log_end` on, until the log's end or the first that is not whole.
    pub fn loadRecords(self: *Generation, disk: Disk, path: []const u8, reader: bool) errors.Error!void {
        var tries: usize = 0;
        while (true) {
            while (try self.loadRecord(disk, path)) {}
            if (self.log_end >= self.log_size) return;
            self.tail = true;
            self.sealed = try self.isSealed(disk, path);
            const after = try self.scanTail(disk, path);
            switch (after) {
                .zeros => return,
                .torn => {
                    self.dropped = true;
                    return;
                },
                .later_record => {},
            }
            // A writer beside a reader may have finished this record and begun the next meanwhile.
            tries += 1;
            if (reader and tries < 8 and try self.loadRecord(disk, path)) continue;
            self.damage = .{
                .sequence = self.records.items.len + 1,
                .epoch_before = self.headOf(self.last()).epoch,
            };
            return;
        }
    }

    /// Takes the record at `log_end` when it is whole (its pages apart): true, else false.
    fn loadRecord(self: *Generation, disk: Disk, path: []const u8) errors.Error!bool {
        const offset = self.log_end;
        if (self.log_size -| offset < page_size) return false;
        var header: format.RecordHeader = undefined;
        if (disk.readAll(self.log, std.mem.asBytes(&header), offset)) |errno| {
            return if (errno == disk_.ended) false else disk_.failErrno(errno, path, "Cannot read the log of image");
        }
        const at = self.checkHeader(&header, offset) orelse return false;

        const allocator = self.arena.allocator();
        const len = at.footer - at.tables + @sizeOf(format.Footer);
        const bytes = allocator.alignedAlloc(u8, .@"16", len) catch return outOfMemory(path);
        if (disk.readAll(self.log, bytes, offset + at.tables)) |errno| {
            return if (errno == disk_.ended) false else disk_.failErrno(errno, path, "Cannot read the log of image");
        }
        const footer: *const format.Footer = @ptrCast(@alignCast(bytes[at.footer - at.tables ..].ptr));
        if (!footer.matches(&header)) return false;
        if (format.hash(bytes[0..at.tables_len]) != header.tables_checksum) return false;
        const record = self.recordOf(&header, at, bytes) orelse return false;
        self.records.append(allocator, record) catch return outOfMemory(path);
        self.log_end = offset + at.end;
        self.chain = header.checksum;
        return true;
    }

    fn checkHeader(self: *const Generation, header: *const format.RecordHeader, offset: u64) ?format.RecordHeader.Layout {
        if (header.magic != format.record_magic or header.salt != self.header.salt or
            header.offset != offset or header.sequence != self.records.items.len + 1 or
            header.chain != self.chain or !header.isSealed()) return null;
        const base = &self.header.heap;
        if (!header.heap.isSane() or header.heap.address != base.address or header.heap.span != base.span or
            !std.mem.eql(u8, &header.heap.uuid, &base.uuid)) return null;
        if (header.epoch > format.epoch_limit) return null;
        // A commit stands in an image once: one that came again could be its own ancestor.
        if (self.find(header.parent) == null or self.find(header.commit) != null) return null;
        const at = header.layout() orelse return null;
        if (at.footer + @sizeOf(format.Footer) > self.log_size - offset) return null;
        return at;
    }

    pub fn recordOf(_: *const Generation, header: *const format.RecordHeader, at: format.RecordHeader.Layout, bytes: []align(16) u8) ?Record {
        var rest: []align(8) u8 = bytes[0..at.tables_len];
        const lines = take(Line, &rest, header.line_count);
        const runs = take(PageRange, &rest, header.run_count);
        const holes = take(PageRange, &rest, header.hole_count);
        const sums = take(u64, &rest, header.page_count);
        std.debug.assert(rest.len == 0);
        const total = format.checkRanges(runs, header.heap.pages()) orelse return null;
        if (total != header.page_count) return null;
        _ = format.checkRanges(holes, header.heap.pages()) orelse return null;
        return .{
            .offset = header.offset,
            .len = at.end,
            .sequence = header.sequence,
            .commit = header.commit,
            .parent = header.parent,
            .epoch = header.epoch,
            .line = header.line,
            .time = header.time,
            .checksum = header.checksum,
            .heap = header.heap,
            .lines = lines,
            .runs = runs,
            .holes = holes,
            .sums = sums,
        };
    }

    /// Whether the last record's seal stands behind it.
    fn isSealed(self: *const Generation, disk: Disk, path: []const u8) errors.Error!bool {
        if (self.records.items.len == 0 or self.log_size - self.log_end < @sizeOf(format.Seal)) return false;
        var found: [@sizeOf(format.Seal)]u8 = undefined;
        if (disk.readAll(self.log, &found, self.log_end)) |errno| {
            return if (errno == disk_.ended) false else disk_.failErrno(errno, path, "Cannot read the log of image");
        }
        return std.mem.eql(u8, &found, std.mem.asBytes(&self.sealOfLast()));
    }

    const Tail = enum { zeros, torn, later_record };

    /// What lies behind the last whole record: R9's question whether a record is torn or damaged.
    fn scanTail(self: *const Generation, disk: Disk, path: []const u8) errors.Error!Tail {
        var result: Tail = .zeros;
        if (plant.is(.r9_damage_is_torn)) return .torn;
        if (plant.is(.r9_torn_is_damage)) return .later_record;
        var buffer: [chunk_len]u8 align(16) = undefined;
        var offset = self.log_end + if (self.sealed) @as(u64, page_size) else 0;
        while (true) {
            // Room for records is not read.
            offset = disk.zerosUntil(self.log, offset, self.log_size);
            if (offset >= self.log_size) break;
            const part = buffer[0..@min(buffer.len, self.log_size - offset)];
            if (disk.readAll(self.log, part, offset)) |errno| {
                // A writer cut it meanwhile.
                if (errno == disk_.ended) return result;
                return disk_.failErrno(errno, path, "Cannot read the log of image");
            }
            // A seal of which a part was written was no commit.
            const begun = if (offset == self.log_end) self.partOfSeal(part) else 0;
            if (!std.mem.allEqual(u8, part[begun..], 0)) result = .torn;
            var at: usize = 0;
            while (at + @sizeOf(format.Seal) <= part.len) : (at += page_size) {
                // A seal says that a record was whole, so what is not whole now was damaged since.
                const seal: *const format.Seal = @ptrCast(@alignCast(part[at..].ptr));
                if (seal.magic == format.seal_magic and seal.salt == self.header.salt and
                    seal.offset == offset + at and seal.sequence > self.records.items.len and
                    seal.isSealed()) return .later_record;
                if (at + page_size > part.len) break;
                const header: *const format.RecordHeader = @ptrCast(@alignCast(part[at..].ptr));
                if (header.magic == format.record_magic and header.salt == self.header.salt and
                    header.offset == offset + at and header.sequence > self.records.items.len + 1 and
                    header.isSealed()) return .later_record;
            }
            offset += part.len;
        }
        return result;
    }

    /// How many of these bytes, which stand behind the last record, are its seal, of which any may
    /// still be zeros: a write goes to the file in pieces, and a power cut keeps any of them.
    fn partOfSeal(self: *const Generation, bytes: []const u8) usize {
        if (self.records.items.len == 0) return 0;
        const seal = self.sealOfLast();
        const len = @min(bytes.len, @sizeOf(format.Seal));
        for (bytes[0..len], std.mem.asBytes(&seal)[0..len]) |byte, wanted| {
            if (byte != 0 and byte != wanted) return 0;
        }
        return len;
    }

    /// R9: the last record's pages against their checksums; when they differ it was torn, and goes.
    pub fn checkLastRecord(self: *Generation, disk: Disk, path: []const u8) errors.Error!void {
        if (self.records.items.len == 0 or self.damage != null or self.sealed or plant.is(.r9_pages_unchecked)) return;
        const record = &self.records.items[self.records.items.len - 1];
        const bad = try firstBadPage(disk, self.log, record.pagesOffset(), record.sums, path);
        if (bad == null) return;
        const followed = try self.isFollowed(disk, path);
        const sequence = record.sequence;
        self.log_end = record.offset;
        self.tail = true;
        self.dropped = !followed;
        self.records.items.len -= 1;
        self.chain = if (self.records.items.len > 0) self.records.items[self.records.items.len - 1].checksum else try self.firstChain(disk, path);
        if (followed) self.damage = .{ .sequence = sequence, .epoch_before = self.headOf(self.last()).epoch };
    }

    /// Whether a record was begun behind the last one, which was on the medium then: no attempt begins
    /// before that.
    fn isFollowed(self: *const Generation, disk: Disk, path: []const u8) errors.Error!bool {
        if (self.log_size -| self.log_end < page_size) return false;
        var header: format.RecordHeader = undefined;
        if (disk.readAll(self.log, std.mem.asBytes(&header), self.log_end)) |errno| {
            return if (errno == disk_.ended) false else disk_.failErrno(errno, path, "Cannot read the log of image");
        }
        return header.magic == format.record_magic and header.salt == self.header.salt and header.offset == self.log_end and
            header.sequence == self.records.items.len + 1 and header.chain == self.chain and header.isSealed();
    }

    fn firstChain(self: *const Generation, disk: Disk, path: []const u8) errors.Error!u64 {
        var first: format.LogHeader = undefined;
        if (disk.readAll(self.log, std.mem.asBytes(&first), 0)) |errno| return disk_.failErrno(errno, path, "Cannot read the log of image");
        return first.checksum;
    }

    /// The base's page checksums in stored order, a chunk at a time; the last call checks them all.
    pub const Sums = struct {
        generation: *const Generation,
        disk: Disk,
        done: u64 = 0,
        hasher: format.Hasher = .init(0),
        /// Of all the checksums, where it reads them.
        reading: ?*reading_.Reading = null,
        buffer: [chunk_len / 8]u64 = undefined,

        pub fn next(self: *Sums, path: []const u8) errors.Error!?[]const u64 {
            const header = self.generation.header;
            if (self.done == header.page_count) {
                if (self.hasher.final() != header.sums_checksum) return corrupt(path, "its page checksums do not match their checksum");
                return null;
            }
            const part = switch (self.read()) {
                .bytes => |bytes| std.mem.bytesAsSlice(u64, bytes),
                .errno => |errno| return disk_.failErrno(errno, path, "Cannot read image"),
            };
            self.hasher.update(std.mem.sliceAsBytes(part));
            self.done += part.len;
            return part;
        }

        fn read(self: *Sums) reading_.Reading.Piece {
            if (self.reading) |reading| return reading.next().?;
            const header = self.generation.header;
            const part = self.buffer[0..@min(self.buffer.len, header.page_count - self.done)];
            const bytes = std.mem.sliceAsBytes(part);
            const errno = self.disk.readAll(self.generation.base, bytes, header.layout().?.sums + self.done * 8) orelse return .{ .bytes = bytes };
            return .{ .errno = errno };
        }
    };
};

fn take(comptime T: type, rest: *[]align(8) u8, count: u64) []const T {
    const len = count * @sizeOf(T);
    const items: [*]const T = @ptrCast(@alignCast(rest.ptr));
    rest.* = @alignCast(rest.*[len..]);
    return items[0..count];
}

/// Index of the first stored page whose bytes do not match its checksum, or null.
pub fn firstBadPage(disk: Disk, file: File, offset: u64, sums: []const u64, path: []const u8) errors.Error!?u64 {
    var buffer: [chunk_len]u8 align(16) = undefined;
    var done: u64 = 0;
    while (done < sums.len) {
        const count: usize = @min(chunk_len / page_size, sums.len - done);
        const part = buffer[0 .. count * page_size];
        if (disk.readAll(file, part, offset + done * page_size)) |errno| {
            if (errno == disk_.ended) return done;
            return disk_.failErrno(errno, path, "Cannot read the pages of image");
        }
        for (0..count) |index| {
            const page: *align(8) const [page_size]u8 = @alignCast(part[index * page_size ..][0..page_size]);
            if (format.pageSum(page) != sums[done + index]) return done + index;
        }
        done += count;
    }
    return null;
}

pub fn corrupt(path: []const u8, what: []const u8) errors.Error {
    return failAs(.CORRUPT, .{ .path = path }, "Cannot open image \"{s}\": {s}; restore it from a backup", .{ path, what });
}

pub fn outOfMemory(path: []const u8) errors.Error {
    return failAs(.OUT_OF_MEMORY, .{ .path = path }, "Cannot work on image \"{s}\": no memory for its tables", .{path});
}
