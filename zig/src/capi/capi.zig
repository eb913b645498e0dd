//! What C programs call: PERM's functions with PERM's signatures and results, the malloc family, and
//! what is new, as include/perm.h declares them. Files of this room: default.zig (the default heap),
//! memory.zig (the malloc family's rules), environment.zig (PERM's variables).
//!
//! Invariant: whatever is passed, short of memory that is not there, nothing here crashes, and nothing
//! is printed. Handles and addresses are compared with what is open, never followed.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const blocks = @import("../heap/blocks.zig");
const heap_room = @import("../heap/heap.zig");
const abi = @import("../abi.zig");
const default = @import("default.zig");
const environment = @import("environment.zig");
const memory = @import("memory.zig");

const Error = errors.Error;
const fail = errors.fail;
const Heap = heap_room.Heap;
const Pointer = memory.Pointer;
const Text = ?[*:0]const u8;

/// A heap's handle as C holds it: the number, not an address.
const Handle = ?*opaque {};

/// perm_options
const Options = extern struct {
    struct_size: usize,
    path: Text = null,
    backup_path: Text = null,
    mode: Text = null,
    size: u64 = 0,
    max_size: u64 = 0,
    address: u64 = 0,
    keep: u64 = 0,
    log_limit: u64 = 0,
    verify: c_int = 0,
    recover: c_int = 0,
    replace: c_int = 0,

    const Named = struct { options: heap_room.OpenOptions, mode: ?heap_room.Mode };

    fn read(given: ?*const Options) Error!Named {
        const self = given orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot open a heap without options: pass a perm_options", .{});
        if (self.struct_size != @sizeOf(Options)) return fail(.INVALID_ARGUMENT, .{}, "Cannot read options of {d} bytes: " ++
            "begin with `perm_options o = PERM_OPTIONS;`", .{self.struct_size});
        return .{
            .mode = if (self.mode) |mode| try modeOf(std.mem.span(mode)) else null,
            .options = .{
                .path = textOf(self.path),
                .backup = textOf(self.backup_path),
                .size = self.size,
                .max_size = self.max_size,
                .address = self.address,
                .keep = if (self.keep == 0) 1 else self.keep,
                .log_limit = self.log_limit,
                .verify = self.verify != 0,
                .recover = self.recover != 0,
                .replace = self.replace != 0,
                .any_heap = true,
            },
        };
    }
};

/// perm_report
const Report = extern struct { epoch: u64, pages: u64, bytes: u64, milliseconds: f64, dropped: c_int };

/// perm_epoch
const Epoch = extern struct { epoch: u64, time: u64, pages: u64, bytes: u64 };

/// perm_stats
const Stats = extern struct { live_bytes: u64, live_blocks: u64, used: u64, capacity: u64, max_size: u64, epoch: u64 };

pub const functions = struct {
    // ---- PERM's own interface
    pub fn perm(ptr: Pointer, size: usize) callconv(.c) c_int {
        return result(default.register(@intFromPtr(ptr), size));
    }

    pub fn mopen(fname: Text, mode: Text, size: usize) callconv(.c) c_int {
        if (default.current() != null) return alreadyOpen("mopen", fname);
        const wanted = modeOf(textOf(mode) orelse "") catch |err| return failed(err);
        _ = default.open(textOf(fname), wanted, .{ .size = size }) catch |err| return failed(err);
        return 0;
    }

    pub fn mclose() callconv(.c) c_int {
        return result(default.close());
    }

    pub fn mflush() callconv(.c) c_int {
        return result(commitDefault("mflush", .map));
    }

    pub fn bopen(fname: Text, mode: Text) callconv(.c) c_int {
        if (default.current()) |heap| if (heap.backup != null) return alreadyOpen("bopen", fname);
        return result(openBackup(fname, mode));
    }

    pub fn bclose() callconv(.c) c_int {
        // PERM closes the map file first, and that closed both.
        const heap = default.current() orelse {
            if (default.lastClosed() != null) return 0;
            return result(default.expectOpen("bclose"));
        };
        return result(heap.bclose());
    }

    pub fn backup() callconv(.c) c_int {
        return result(commitDefault("backup", .backup));
    }

    pub fn restore() callconv(.c) c_int {
        return result(restoreHeap(null, 1, 0, null));
    }

    // ---- memory
    pub fn perm_malloc(size: usize) callconv(.c) Pointer {
        const heap = default.forAllocation() catch |err| return memory.refused(err);
        return memory.malloc(heap, size);
    }

    pub fn perm_calloc(count: usize, size: usize) callconv(.c) Pointer {
        const heap = default.forAllocation() catch |err| return memory.refused(err);
        return memory.calloc(heap, count, size);
    }

    pub fn perm_realloc(ptr: Pointer, size: usize) callconv(.c) Pointer {
        const heap = default.forAllocation() catch |err| return memory.refused(err);
        return memory.realloc(heap, ptr, size);
    }

    pub fn perm_reallocarray(ptr: Pointer, count: usize, size: usize) callconv(.c) Pointer {
        return perm_realloc(ptr, memory.product(count, size) orelse return null);
    }

    pub fn perm_free(ptr: Pointer) callconv(.c) void {
        if (ptr == null) return;
        const heap = default.forFreeing() catch return;
        heap.alloc.free(@intFromPtr(ptr)) catch {};
    }

    pub fn perm_free_sized(ptr: Pointer, _: usize) callconv(.c) void {
        perm_free(ptr);
    }

    pub fn perm_free_aligned_sized(ptr: Pointer, _: usize, _: usize) callconv(.c) void {
        perm_free(ptr);
    }

    /// Returns the error number and leaves errno alone.
    pub fn perm_posix_memalign(out: ?*Pointer, alignment: usize, size: usize) callconv(.c) c_int {
        if (alignment == 0 or alignment % @sizeOf(usize) != 0 or !std.math.isPowerOfTwo(alignment)) {
            _ = fail(.INVALID_ARGUMENT, .{}, "Cannot align a block to {d}: give a power of two that is a multiple of {d}", .{
                alignment, @sizeOf(usize),
            }) catch {};
            return @intFromEnum(os.E.INVAL);
        }
        const into = out orelse return @intFromEnum(os.E.INVAL);
        const heap = default.forAllocation() catch return @intFromEnum(os.E.NOMEM);
        into.* = memory.give(heap.alloc.alignedAlloc(alignment, size) catch return @intFromEnum(os.E.NOMEM));
        return 0;
    }

    pub fn perm_aligned_alloc(alignment: usize, size: usize) callconv(.c) Pointer {
        const heap = default.forAllocation() catch |err| return memory.refused(err);
        return memory.aligned(heap, alignment, size);
    }

    pub fn perm_memalign(alignment: usize, size: usize) callconv(.c) Pointer {
        return perm_aligned_alloc(alignment, size);
    }

    pub fn perm_valloc(size: usize) callconv(.c) Pointer {
        return perm_aligned_alloc(os.page_size, size);
    }

    pub fn perm_malloc_usable_size(ptr: Pointer) callconv(.c) usize {
        if (ptr == null) return 0;
        const heap = default.current() orelse default.lastClosed() orelse return 0;
        return heap.alloc.usableSize(@intFromPtr(ptr)) catch 0;
    }

    pub fn perm_strdup(text: Text) callconv(.c) Pointer {
        return copyText(std.mem.span(text orelse return invalidText()));
    }

    pub fn perm_strndup(text: Text, size: usize) callconv(.c) Pointer {
        const from = text orelse return invalidText();
        var len: usize = 0;
        while (len < size and from[len] != 0) len += 1;
        return copyText(from[0..len]);
    }

    // ---- errors
    pub fn perm_error() callconv(.c) [*:0]const u8 {
        const last = errors.last() orelse return "";
        return if (last.code == 0) "" else &last.message;
    }

    pub fn perm_error_code() callconv(.c) c_int {
        const last = errors.last() orelse return 0;
        return last.code;
    }

    pub fn perm_code_name(code: c_int) callconv(.c) [*:0]const u8 {
        if (code == 0) return "OK";
        inline for (@typeInfo(errors.Code).@"enum".fields) |field| {
            if (field.value == code) return field.name;
        }
        return "unknown";
    }

    pub fn perm_clear_error() callconv(.c) void {
        errors.clear();
    }

    // ---- globals by name
    pub fn perm_named(name: Text, ptr: Pointer, size: usize) callconv(.c) c_int {
        const key = blockName(name) catch |err| return failed(err);
        return result(default.registerNamed(key, @intFromPtr(ptr), size));
    }

    pub fn unperm(ptr: Pointer) callconv(.c) c_int {
        return result(default.unregister(@intFromPtr(ptr)));
    }

    // ---- several heaps, epochs
    pub fn perm_mopen(options: ?*const Options) callconv(.c) c_int {
        if (default.current() != null) return alreadyOpen("mopen", if (options) |given| given.path else null);
        const given = Options.read(options) catch |err| return failed(err);
        const mode = given.mode orelse .w;
        _ = default.open(given.options.path, mode, given.options) catch |err| return failed(err);
        return 0;
    }

    pub fn perm_bopen(handle: Handle, options: ?*const Options) callconv(.c) c_int {
        const heap = find(handle) catch |err| return failed(err);
        if (heap.backup != null) return alreadyOpen("bopen", if (options) |given| given.path else null);
        var given = Options.read(options) catch |err| return failed(err);
        given.options.mode = given.mode orelse .rw;
        return result(heap.bopen(given.options));
    }

    pub fn perm_bclose(handle: Handle) callconv(.c) c_int {
        const heap = find(handle) catch |err| return failed(err);
        return result(heap.bclose());
    }

    pub fn perm_grow(handle: Handle, size: u64) callconv(.c) c_int {
        const heap = find(handle) catch |err| return failed(err);
        return result(heap.grow(size));
    }

    pub fn perm_default() callconv(.c) Handle {
        const heap = default.current() orelse return null;
        return @ptrFromInt(heap.handle);
    }

    pub fn perm_heap_open(options: ?*const Options) callconv(.c) Handle {
        const heap = openHeap(options) catch |err| {
            _ = failed(err);
            return null;
        };
        return @ptrFromInt(heap.handle);
    }

    pub fn perm_heap_close(handle: Handle) callconv(.c) c_int {
        const heap = find(handle) catch |err| return failed(err);
        if (default.current() == heap) return result(notDefault());
        return result(heap.close());
    }

    pub fn perm_commit(handle: Handle, image: c_int, report: ?*Report) callconv(.c) c_int {
        return result(commitHeap(handle, image, report));
    }

    pub fn perm_restore(handle: Handle, image: c_int, epoch: u64, report: ?*Report) callconv(.c) c_int {
        return result(restoreHeap(handle, image, epoch, report));
    }

    pub fn perm_epochs(handle: Handle, image: c_int, into: ?[*]Epoch, capacity: usize) callconv(.c) c_long {
        return @intCast(epochsOf(handle, image, into, capacity) catch |err| return failed(err));
    }

    pub fn perm_heap_malloc(handle: Handle, size: usize) callconv(.c) Pointer {
        return memory.malloc(findWritable(handle) catch |err| return memory.refused(err), size);
    }

    pub fn perm_heap_calloc(handle: Handle, count: usize, size: usize) callconv(.c) Pointer {
        return memory.calloc(findWritable(handle) catch |err| return memory.refused(err), count, size);
    }

    pub fn perm_heap_realloc(handle: Handle, ptr: Pointer, size: usize) callconv(.c) Pointer {
        return memory.realloc(findWritable(handle) catch |err| return memory.refused(err), ptr, size);
    }

    pub fn perm_heap_aligned_alloc(handle: Handle, alignment: usize, size: usize) callconv(.c) Pointer {
        return memory.aligned(findWritable(handle) catch |err| return memory.refused(err), alignment, size);
    }

    pub fn perm_heap_free(handle: Handle, ptr: Pointer) callconv(.c) c_int {
        const heap = findWritable(handle) catch |err| return failed(err);
        return result(heap.alloc.free(@intFromPtr(ptr)));
    }

    pub fn perm_global(handle: Handle, name: Text, size: usize) callconv(.c) Pointer {
        return memory.give(globalOf(handle, name, size) catch |err| {
            _ = failed(err);
            return null;
        });
    }

    pub fn perm_heap_perm(handle: Handle, name: Text, ptr: Pointer, size: usize) callconv(.c) c_int {
        return result(registerWith(handle, name, ptr, size));
    }

    pub fn perm_heap_unperm(handle: Handle, name: Text) callconv(.c) c_int {
        const heap = findWritable(handle) catch |err| return failed(err);
        return result(heap.unperm(blockName(name) catch |err| return failed(err)));
    }

    pub fn perm_root(handle: Handle) callconv(.c) Pointer {
        const heap = find(handle) catch |err| {
            _ = failed(err);
            return null;
        };
        return memory.give(heap.header().root);
    }

    pub fn perm_set_root(handle: Handle, ptr: Pointer) callconv(.c) c_int {
        const heap = findWritable(handle) catch |err| return failed(err);
        const address = @intFromPtr(ptr);
        if (address != 0) heap.expectRange(address, 0) catch |err| return failed(err);
        heap.header().root = address;
        return 0;
    }

    pub fn perm_owns(handle: Handle, ptr: Pointer) callconv(.c) c_int {
        const heap = find(handle) catch return 0;
        return @intFromBool(heap.holds(@intFromPtr(ptr)));
    }

    pub fn perm_check(handle: Handle) callconv(.c) c_int {
        const heap = find(handle) catch |err| return failed(err);
        return result(heap.check());
    }

    pub fn perm_stat(handle: Handle, into: ?*Stats) callconv(.c) c_int {
        return result(statsOf(handle, into));
    }

    // ---- operator new and delete
    pub fn perm_new(size: usize, alignment: usize) callconv(.c) Pointer {
        const heap = default.forAllocation() catch |err| {
            // A heap that was asked for and cannot be had is no reason to go on without one.
            if (err != error.NOT_OPEN and err != error.READ_ONLY) return memory.refused(err);
            return os.host_memory.allocate(size, alignment);
        };
        return memory.give(heap.alloc.alignedAlloc(@max(alignment, 1), size) catch |err| return memory.refused(err));
    }

    pub fn perm_delete(ptr: Pointer) callconv(.c) void {
        const address = @intFromPtr(ptr);
        for ([_]?*Heap{ default.current(), default.lastClosed() }) |slot| {
            const heap = slot orelse continue;
            if (!heap.holds(address)) continue;
            heap.alloc.free(address) catch {};
            return;
        }
        if (!heap_room.wasHeap(address)) os.host_memory.free(ptr);
    }
};

// ------------------------------------------------------------------ results

/// 0, or -1 with errno.
fn result(value: anytype) c_int {
    _ = value catch |err| return failed(err);
    return 0;
}

fn failed(err: Error) c_int {
    @branchHint(.cold);
    const code = errors.codeOf(err);
    const last = errors.last();
    const known = if (last) |record| record.code == @intFromEnum(code) and record.errno != 0 else false;
    os.setErrno(if (known) last.?.errno else @intFromEnum(errnoOf(code)));
    return -1;
}

fn errnoOf(code: errors.Code) os.E {
    return switch (code) {
        .INVALID_ARGUMENT, .BAD_POINTER, .DOUBLE_FREE, .BLOCK_MISMATCH, .LAYOUT_MISMATCH, .NOT_AN_IMAGE, .BAD_VERSION => .INVAL,
        .NOT_FOUND, .NO_EPOCH => .NOENT,
        .EXISTS, .ADDRESS_IN_USE => .EXIST,
        .BUSY, .ALREADY_OPEN => .BUSY,
        .READ_ONLY => .ROFS,
        .NOT_OPEN, .CLOSED => .BADF,
        .NO_COMMIT => .NODATA,
        .OUT_OF_MEMORY => .NOMEM,
        .NO_SPACE => .NOSPC,
        .CORRUPT, .IO => .IO,
        .STALE => .STALE,
        .FORKED, .PERMISSION => .PERM,
        .UNSUPPORTED => .OPNOTSUPP,
    };
}

/// PERM's own result for a file that is open already.
fn alreadyOpen(comptime action: []const u8, path: Text) c_int {
    const name = textOf(path) orelse "";
    _ = failed(fail(.ALREADY_OPEN, .{ .path = name }, "Cannot " ++ action ++ " \"{s}\": one is open already", .{name}));
    return -2;
}

fn notDefault() Error!void {
    return fail(.INVALID_ARGUMENT, .{}, "Cannot close the default heap as one among several: use mclose()", .{});
}

// ------------------------------------------------------------------ arguments

fn textOf(text: Text) ?[]const u8 {
    return std.mem.span(text orelse return null);
}

fn modeOf(text: []const u8) Error!heap_room.Mode {
    return environment.modeOf(text) orelse
        fail(.INVALID_ARGUMENT, .{}, "Cannot open with mode \"{s}\": give \"w+\", \"r+\" or \"r\"", .{text});
}

fn blockName(name: Text) Error![]const u8 {
    const text = textOf(name) orelse "";
    if (text.len > 0 and text.len <= blocks.name_len_max) return text;
    return fail(.INVALID_ARGUMENT, .{}, "Cannot use a block name of {d} bytes: a name has 1 to {d}", .{
        text.len, blocks.name_len_max,
    });
}

fn find(handle: Handle) Error!*Heap {
    const number = @intFromPtr(handle);
    if (number == 0) return default.expectOpen("use the default heap");
    return Heap.find(number) orelse fail(.CLOSED, .{}, "The heap is closed; open it again", .{});
}

fn findWritable(handle: Handle) Error!*Heap {
    const heap = try find(handle);
    return if (heap.mode == .r) heap.readOnly() else heap;
}

fn whichOf(image: c_int) Error!heap_room.Which {
    return switch (image) {
        0 => .map,
        1 => .backup,
        else => fail(.INVALID_ARGUMENT, .{}, "Cannot use image {d}: give PERM_MAP or PERM_BACKUP", .{image}),
    };
}

fn invalidText() Pointer {
    return memory.refused(fail(.INVALID_ARGUMENT, .{}, "Cannot copy a text at address 0", .{}));
}

fn copyText(text: []const u8) Pointer {
    const copy = functions.perm_malloc(text.len + 1) orelse return null;
    const bytes: [*]u8 = @ptrCast(copy);
    @memcpy(bytes[0..text.len], text);
    bytes[text.len] = 0;
    return copy;
}

// ------------------------------------------------------------------ what takes more than a line

fn commitDefault(comptime action: []const u8, which: heap_room.Which) Error!void {
    const heap = try default.expectOpen(action);
    _ = try heap.commit(which);
}

fn openBackup(fname: Text, mode: Text) Error!void {
    const heap = try default.expectOpen("bopen");
    const wanted = try modeOf(textOf(mode) orelse "");
    try heap.bopen(.{ .path = textOf(fname), .mode = wanted, .any_heap = true });
}

fn openHeap(options: ?*const Options) Error!*Heap {
    var given = try Options.read(options);
    given.options.mode = given.mode orelse return Heap.openNewest(given.options);
    if (given.options.backup != null) return fail(.INVALID_ARGUMENT, .{}, "Cannot open a heap with a mode and a backup " ++
        "file: leave `mode` out, or use perm_bopen()", .{});
    return Heap.mopen(given.options);
}

fn commitHeap(handle: Handle, image: c_int, report: ?*Report) Error!void {
    const heap = try find(handle);
    tell(try heap.commit(try whichOf(image)), report);
}

fn restoreHeap(handle: Handle, image: c_int, epoch: u64, report: ?*Report) Error!void {
    const heap = try find(handle);
    defer default.dropIfGone(heap);
    tell(try heap.restore(.{ .epoch = if (epoch == 0) null else epoch, .from = try whichOf(image) }), report);
}

fn tell(from: abi.records.Report, into: ?*Report) void {
    const report = into orelse return;
    report.* = .{
        .epoch = @intFromFloat(from.epoch),
        .pages = @intFromFloat(from.pages),
        .bytes = @intFromFloat(from.bytes),
        .milliseconds = from.duration_ms,
        .dropped = if (from.dropped != 0) 1 else 0,
    };
}

fn epochsOf(handle: Handle, image: c_int, into: ?[*]Epoch, capacity: usize) Error!u64 {
    const heap = try find(handle);
    const which = try whichOf(image);
    var list: [256]abi.records.Epoch = undefined;
    const count = try heap.epochs(which, &list);
    if (capacity == 0) return count;
    const out = into orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot list epochs at address 0", .{});
    for (0..@min(count, capacity, list.len)) |i| out[i] = .{
        .epoch = @intFromFloat(list[i].epoch),
        .time = @intFromFloat(list[i].time),
        .pages = @intFromFloat(list[i].pages),
        .bytes = @intFromFloat(list[i].bytes),
    };
    return count;
}

fn globalOf(handle: Handle, name: Text, size: usize) Error!usize {
    const heap = try find(handle);
    if (size == 0) return fail(.INVALID_ARGUMENT, .{}, "Cannot make a global of 0 bytes", .{});
    const block = try heap.global(try blockName(name), size, 0);
    return block.address;
}

fn registerWith(handle: Handle, name: Text, ptr: Pointer, size: usize) Error!void {
    const heap = try find(handle);
    try default.expectMemory(@intFromPtr(ptr), size);
    _ = try heap.perm(try blockName(name), size, 0, @intFromPtr(ptr));
}

fn statsOf(handle: Handle, into: ?*Stats) Error!void {
    const heap = try find(handle);
    const out = into orelse return fail(.INVALID_ARGUMENT, .{}, "Cannot tell a heap's statistics to address 0", .{});
    const stats = try heap.stats();
    out.* = .{
        .live_bytes = @intFromFloat(stats.live_bytes),
        .live_blocks = @intFromFloat(stats.live_blocks),
        .used = @intFromFloat(stats.used),
        .capacity = @intFromFloat(stats.capacity),
        .max_size = @intFromFloat(stats.max_size),
        .epoch = heap.history.epoch(),
    };
}
