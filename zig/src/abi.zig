//! What TypeScript calls. Every number crosses as f64 (exact below 2^53: 2–4 ns a call in both
//! runtimes), text and records as buffers. A function returns its result, or the negative of an
//! error code; what the error is about waits in `ph_error`. `symbols.zig` turns the declarations of
//! this file into `ffi/symbols.ts`; there is no second list.
//!
//! Invariant: whatever numbers arrive, nothing here crashes.

const std = @import("std");
const errors = @import("errors.zig");
const numbers = @import("numbers.zig");
const os = @import("os/os.zig");
const file = @import("os/file.zig");
const heap_room = @import("heap/heap.zig");
const background = @import("heap/background.zig");
const blocks = @import("heap/blocks.zig");
const live_room = @import("alloc/live.zig");
const threads = @import("alloc/threads.zig");
const perm_block = @import("heap/perm_block.zig");

const Heap = heap_room.Heap;

const Error = errors.Error;
const fail = errors.fail;

/// A record that crosses as a Float64Array: fields in order, numbers only.
pub const records = struct {
    /// `mode`: 0 "w+", 1 "r+", 2 "r". `tracker`: 0 auto, 1 uffd, 2 checksum. Zero sizes, addresses
    /// and limits mean "not given"; `keep` counts epochs to go back to.
    pub const OpenArgs = extern struct {
        mode: f64 = 0,
        size: f64 = 0,
        max_size: f64 = 0,
        /// On return from `ph_open` and `ph_mopen`, where the heap lies.
        address: f64 = 0,
        tracker: f64 = 0,
        keep: f64 = 1,
        log_limit: f64 = 0,
        shared: f64 = 0,
        verify: f64 = 0,
        recover: f64 = 0,
        replace: f64 = 0,
        /// Bytes of the text buffer that are the map file's path; 0 for none.
        path_len: f64 = 0,
        /// Bytes after them that are the backup file's path (`ph_open` only); 0 for none.
        backup_len: f64 = 0,
    };

    /// `resumed`: 0 new, 1 file, 2 backup. `tracker`: 1 uffd, 2 checksum. `capacity` is what the
    /// heap may fill before it grows, `max_size` what it may grow to, `span` the whole range from
    /// `address` on that belongs to the heap. What may be viewed are the `capacity` bytes from `data` on.
    pub const HeapInfo = extern struct {
        address: f64 = 0,
        span: f64 = 0,
        data: f64 = 0,
        capacity: f64 = 0,
        max_size: f64 = 0,
        used: f64 = 0,
        epoch: f64 = 0,
        mode: f64 = 0,
        resumed: f64 = 0,
        tracker: f64 = 0,
        dropped: f64 = 0,
        /// Bit 0: a map image is open; bit 1: a backup image is open.
        images: f64 = 0,
    };

    pub const Stats = extern struct {
        /// Bytes in live blocks, as rounded to their size classes.
        live_bytes: f64 = 0,
        live_blocks: f64 = 0,
        /// Bytes of spans and large blocks, free slots in them included, and of metadata in use.
        used: f64 = 0,
        capacity: f64 = 0,
        max_size: f64 = 0,
        metadata_bytes: f64 = 0,
        spans: f64 = 0,
        commits: f64 = 0,
        folds: f64 = 0,
        map_base_bytes: f64 = 0,
        map_log_bytes: f64 = 0,
        backup_base_bytes: f64 = 0,
        backup_log_bytes: f64 = 0,
        /// Runs of pages that the last open or restore laid over the base.
        log_runs: f64 = 0,
        blocks: f64 = 0,
        /// Asynchronous commits that have not ended.
        commits_under_way: f64 = 0,
        /// 1: the heap lies in its file; `map_base_bytes` is the room that takes.
        shared: f64 = 0,
    };

    pub const Report = extern struct {
        epoch: f64 = 0,
        pages: f64 = 0,
        bytes: f64 = 0,
        duration_ms: f64 = 0,
        dropped: f64 = 0,
    };

    /// `epoch` −1: the last one. `from`: 0 backup if open, else map; 1 backup; 2 map. `views`: 1 when
    /// views of the heap are out, so that it must not move.
    pub const RestoreArgs = extern struct {
        epoch: f64 = -1,
        from: f64 = 0,
        verify: f64 = 0,
        views: f64 = 0,
    };

    /// `found`: 1 when the heap held the block before. `address`: its shadow, or the block itself
    /// for globals that live in the heap.
    pub const BlockInfo = extern struct {
        id: f64 = 0,
        address: f64 = 0,
        found: f64 = 0,
    };

    pub const ImageInfo = extern struct {
        epoch: f64 = 0,
        /// Bytes of the text buffer that hold the image's path; its UUID (36 bytes) follows.
        path_len: f64 = 0,
    };

    /// `time` in milliseconds since 1970.
    pub const Epoch = extern struct {
        epoch: f64 = 0,
        time: f64 = 0,
        pages: f64 = 0,
        bytes: f64 = 0,
    };

    /// Of a copy. Lengths are of the text buffer: the original's path first, then the copy's.
    pub const FileArgs = extern struct {
        replace: f64 = 0,
        from_len: f64 = 0,
        to_len: f64 = 0,
    };

    /// What an image that no heap has open holds: its last epoch, how many there are, pages and bytes.
    pub const FileReport = extern struct {
        epoch: f64 = 0,
        epochs: f64 = 0,
        pages: f64 = 0,
        bytes: f64 = 0,
        duration_ms: f64 = 0,
    };

    /// Lengths are of the text buffer: message first, then path, then what a damaged page belongs to.
    /// `epoch`: the last one known to be whole, of damage that leaves one.
    pub const ErrorInfo = extern struct {
        code: f64 = 0,
        errno: f64 = 0,
        address: f64 = 0,
        epoch: f64 = 0,
        message_len: f64 = 0,
        path_len: f64 = 0,
        owner_len: f64 = 0,
    };
};

/// JavaScript memory, valid during the call only. Null when an empty buffer was passed.
pub const Buffer = ?[*]u8;

/// A generation-stamped reference to a heap of this process: its place in the table of heaps, and
/// how many heaps that place has had. What is not such a reference is CLOSED, whatever it is.
pub const HeapHandle = f64;

/// Which image of a heap: 0 map file, 1 backup file.
pub const Which = f64;

pub const functions = struct {
    // ---- errors and files
    /// The calling thread's last error. Fills ErrorInfo and `text` (2304 bytes).
    pub fn ph_error(info: Buffer, text: Buffer) callconv(.c) f64 {
        const last = errors.last() orelse return 0;
        const out = record(records.ErrorInfo, info) catch return 0;
        const into = text orelse return 0;
        out.* = .{
            .code = number(last.code),
            .errno = number(last.errno),
            .address = number(last.address),
            .epoch = number(last.epoch),
            .message_len = number(last.message_len),
            .path_len = number(last.path_len),
            .owner_len = number(last.owner_len),
        };
        @memcpy(into[0..last.message_len], last.message[0..last.message_len]);
        @memcpy(into[last.message_len..][0..last.path_len], last.path[0..last.path_len]);
        @memcpy(into[last.message_len + last.path_len ..][0..last.owner_len], last.owner[0..last.owner_len]);
        return 1;
    }

    /// Reads a small file (a kernel setting) whole: bytes read. `path` ends with a zero byte.
    pub fn ph_file_read(path: Buffer, into: Buffer, len: f64) callconv(.c) f64 {
        return result(fileRead(path, into, len));
    }

    /// Writes a small file: with `create` 1 a new one, synced (EXISTS when it is there); with 0 over
    /// what exists; with 2 removes it instead.
    pub fn ph_file_write(path: Buffer, from: Buffer, len: f64, create: f64) callconv(.c) f64 {
        return result(fileWrite(path, from, len, create));
    }

    // ---- heaps
    /// PERM's mopen. `args`: OpenArgs. `text`: the map file's path. Returns a heap handle.
    pub fn ph_mopen(args: Buffer, text: Buffer) callconv(.c) f64 {
        return result(open(args, text, false));
    }

    /// Heap.open: resumes from whichever image holds the newest intact commit, else makes a new heap.
    pub fn ph_open(args: Buffer, text: Buffer) callconv(.c) f64 {
        return result(open(args, text, true));
    }

    /// Closes without committing; BUSY while another living thread is attached.
    pub fn ph_close(handle: HeapHandle) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return result(heap.close());
    }

    /// The heap of this process that `text` (of `len` bytes, from `ph_handle_text`) names; attaches
    /// the calling thread until `ph_detach` or its end. Returns a heap handle.
    pub fn ph_attach(text: Buffer, len: f64) callconv(.c) f64 {
        return result(attach(text, len));
    }

    pub fn ph_detach(handle: HeapHandle) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        heap.detach();
        return 0;
    }

    /// Writes the heap's handle as text (64 bytes at most): its length.
    pub fn ph_handle_text(handle: HeapHandle, text: Buffer) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const out = text orelse return missingBuffer("text");
        return number(heap.handleText(out[0..64]).len);
    }

    /// Fills HeapInfo.
    pub fn ph_info(handle: HeapHandle, out: Buffer) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const into = record(records.HeapInfo, out) catch |err| return codeOf(err);
        into.* = heap.info();
        return 0;
    }

    /// Fills Stats; walks the metadata.
    pub fn ph_stats(handle: HeapHandle, out: Buffer) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const into = record(records.Stats, out) catch |err| return codeOf(err);
        into.* = heap.stats() catch |err| return codeOf(err);
        return 0;
    }

    /// Walks and verifies all metadata: 0, or CORRUPT with what is wrong.
    pub fn ph_check(handle: HeapHandle) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return result(heap.check());
    }

    pub fn ph_grow(handle: HeapHandle, size: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return result(heap.grow(whole(size) orelse return refuse("grow the heap to", size)));
    }

    // ---- memory: pointers are addresses; 0 is null
    pub fn ph_malloc(handle: HeapHandle, size: f64) callconv(.c) f64 {
        if (lately(handle)) |heap| if (exact(size)) |bytes| {
            const address = heap.alloc.tryMalloc(bytes);
            if (address != 0) return numbers.ofNearAddress(address);
        };
        return mallocSlow(handle, size);
    }

    pub fn ph_calloc(handle: HeapHandle, count: f64, size: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const n = whole(count) orelse return refuse("allocate a count of", count);
        const bytes = whole(size) orelse return refuse("allocate", size);
        return number(heap.alloc.calloc(n, bytes) catch |err| return codeOf(err));
    }

    /// Zeroed memory that commits leave out.
    pub fn ph_malloc_scratch(handle: HeapHandle, size: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const bytes = whole(size) orelse return refuse("allocate", size);
        return number(heap.alloc.scratch(bytes) catch |err| return codeOf(err));
    }

    pub fn ph_realloc(handle: HeapHandle, pointer: f64, size: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const address = whole(pointer) orelse return badPointer(pointer);
        const bytes = whole(size) orelse return refuse("allocate", size);
        return number(heap.alloc.realloc(address, bytes) catch |err| return codeOf(err));
    }

    pub fn ph_free(handle: HeapHandle, pointer: f64) callconv(.c) f64 {
        if (lately(handle)) |heap| {
            if (heap.alloc.tryFree(numbers.nearAddress(pointer))) return 0;
        }
        return freeSlow(handle, pointer);
    }

    pub fn ph_aligned_alloc(handle: HeapHandle, alignment: f64, size: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const to = whole(alignment) orelse return refuse("align to", alignment);
        const bytes = whole(size) orelse return refuse("allocate", size);
        return number(heap.alloc.alignedAlloc(to, bytes) catch |err| return codeOf(err));
    }

    pub fn ph_usable_size(handle: HeapHandle, pointer: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const address = whole(pointer) orelse return badPointer(pointer);
        return number(heap.alloc.usableSize(address) catch |err| return codeOf(err));
    }

    /// `count` blocks of `size` bytes, addresses as f64 into `out`; all or none.
    pub fn ph_malloc_many(handle: HeapHandle, size: f64, count: f64, out: Buffer) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const bytes = whole(size) orelse return refuse("allocate", size);
        const n = whole(count) orelse return refuse("allocate a count of", count);
        if (n == 0) return 0;
        const into: [*]f64 = @ptrCast(@alignCast(out orelse return missingBuffer("out")));
        heap.alloc.mallocMany(bytes, into[0..n]) catch |err| return codeOf(err);
        return 0;
    }

    /// Frees the `count` addresses (f64) in `pointers`; on a bad one stops there: those before it
    /// are freed, and the error's address names it.
    pub fn ph_free_many(handle: HeapHandle, pointers: Buffer, count: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const n = whole(count) orelse return refuse("free a count of", count);
        if (n == 0) return 0;
        const from: [*]const f64 = @ptrCast(@alignCast(pointers orelse return missingBuffer("pointers")));
        heap.alloc.freeMany(from[0..n], null) catch |err| return codeOf(err);
        return 0;
    }

    /// 0 when `[address, address + len)` is heap memory that may be viewed, else BAD_POINTER.
    pub fn ph_range(handle: HeapHandle, address: f64, len: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const from = whole(address) orelse return badPointer(address);
        const bytes = whole(len) orelse return refuse("view", len);
        return result(heap.expectRange(from, bytes));
    }

    /// Fills `out` with address and size of each live block from `from` on, `count` at most: how many
    /// there were.
    pub fn ph_live_blocks(handle: HeapHandle, from: f64, out: Buffer, count: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const first = whole(from) orelse return badPointer(from);
        const n = whole(count) orelse return refuse("list a count of", count);
        if (n == 0) return 0;
        const into: [*]live_room.Live = @ptrCast(@alignCast(out orelse return missingBuffer("out")));
        return number(heap.alloc.liveBlocks(first, into[0..n]) catch |err| return codeOf(err));
    }

    /// The blocks that the heap's own table of names takes: address, and bytes that may hold pointers
    /// of the program's. Fills `out` with `count` at most: how many there are.
    pub fn ph_own_blocks(handle: HeapHandle, out: Buffer, count: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const n = whole(count) orelse return refuse("list a count of", count);
        const into: [*][2]f64 = @ptrCast(@alignCast(out orelse return missingBuffer("out")));
        return number(heap.ownBlocks(into[0..n]) catch |err| return codeOf(err));
    }

    /// Takes the lock at `address` (16 bytes), or the heap's gate for 0, for writing or for reading:
    /// 1, or 0 when `timeout_ms` went by; a negative one waits for ever.
    pub fn ph_lock(handle: HeapHandle, address: f64, exclusive: f64, timeout_ms: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const at = whole(address) orelse return badPointer(address);
        const timeout_ns: ?u64 = if (timeout_ms < 0) null else blk: {
            const ns = whole(@floor(timeout_ms * 1e6)) orelse return refuse("wait for milliseconds", timeout_ms);
            break :blk ns;
        };
        const lock = heap.lockAt(at) catch |err| return codeOf(err);
        const taken = lock.acquire(heap.sessionOf(at), exclusive != 0, timeout_ns) catch |err| return codeOf(err);
        return if (taken) 1 else 0;
    }

    pub fn ph_unlock(handle: HeapHandle, address: f64, exclusive: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        const at = whole(address) orelse return badPointer(address);
        const lock = heap.lockAt(at) catch |err| return codeOf(err);
        return result(lock.release(heap.sessionOf(at), exclusive != 0));
    }

    pub fn ph_root(handle: HeapHandle) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return number(heap.header().root);
    }

    /// Null, or a pointer into the heap's data.
    pub fn ph_root_set(handle: HeapHandle, pointer: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const address = whole(pointer) orelse return badPointer(pointer);
        if (address != 0) heap.expectRange(address, 0) catch |err| return codeOf(err);
        heap.header().root = address;
        return 0;
    }

    // ---- blocks
    /// Registers a persistent global by name. `address` lies in the PERM block (native code copies
    /// it at each commit), or is 0 for a JavaScript buffer (the caller copies with
    /// `ph_block_store`, from the thread that registered it). Fills BlockInfo; a native block that
    /// the heap held is filled at once.
    pub fn ph_perm(handle: HeapHandle, name: Buffer, name_len: f64, size: f64, layout: f64, address: f64, out: Buffer) callconv(.c) f64 {
        return result(perm(handle, name, name_len, size, layout, address, out));
    }

    /// Ends a registration and removes the stored block; NOT_FOUND when the heap has none.
    pub fn ph_unperm(handle: HeapHandle, name: Buffer, name_len: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        const key = blockName(name, name_len) catch |err| return codeOf(err);
        return result(heap.unperm(key));
    }

    /// Copies a JavaScript buffer into the shadow of block `id`, only where it differs.
    pub fn ph_block_store(handle: HeapHandle, id: f64, from: Buffer, len: f64) callconv(.c) f64 {
        const heap = writable(handle) catch |err| return codeOf(err);
        return result(copyBlock(heap, id, from, len, .write));
    }

    /// Copies the shadow of block `id` into a JavaScript buffer; a block that the restored epoch did
    /// not have yet leaves it as it is.
    pub fn ph_block_load(handle: HeapHandle, id: f64, into: Buffer, len: f64) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return result(copyBlock(heap, id, into, len, .read));
    }

    /// A named persistent array that lives in the heap. Fills BlockInfo.
    pub fn ph_global(handle: HeapHandle, name: Buffer, name_len: f64, size: f64, layout: f64, out: Buffer) callconv(.c) f64 {
        return result(global(handle, name, name_len, size, layout, out));
    }

    /// The PERM block's memory: `size` more bytes, zeroed, 16-aligned, of library memory that stays
    /// for the life of the process. Returns its address; with 0 the address of the block's start.
    pub fn ph_static(size: f64) callconv(.c) f64 {
        const bytes = whole(size) orelse return refuse("declare PERM data of", size);
        return number(perm_block.allocate(bytes) catch |err| return codeOf(err));
    }

    // ---- images and commits
    /// PERM's bopen on a heap. `args`: OpenArgs (mode, keep, log_limit, verify, recover, replace).
    pub fn ph_bopen(handle: HeapHandle, args: Buffer, text: Buffer) callconv(.c) f64 {
        return result(bopen(handle, args, text));
    }

    pub fn ph_bclose(handle: HeapHandle) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return result(heap.bclose());
    }

    /// Commits to the map file (0) or the backup file (1). Fills Report.
    pub fn ph_commit(handle: HeapHandle, which: Which, out: Buffer) callconv(.c) f64 {
        return result(commit(handle, which, out));
    }

    /// Takes the heap as it is now for a commit that ends in the background: its number.
    pub fn ph_commit_async(handle: HeapHandle, which: Which) callconv(.c) f64 {
        const heap = lookup(handle) catch |err| return codeOf(err);
        return result(heap.commitAsync(whichOf(which)));
    }

    /// Waits for the end of that commit, in a thread of the runtime's.
    pub fn ph_commit_wait(commit_number: f64) callconv(.c) f64 {
        return result(background.await(whole(commit_number) orelse 0));
    }

    /// The outcome of that commit, once: 0 while it is under way, 1 with Report filled, or an error.
    pub fn ph_commit_fetch(commit_number: f64, out: Buffer) callconv(.c) f64 {
        return result(commitFetch(commit_number, out));
    }

    /// `args`: RestoreArgs. Fills Report. The heap may have moved: read HeapInfo again.
    pub fn ph_restore(handle: HeapHandle, args: Buffer, out: Buffer) callconv(.c) f64 {
        return result(restore(handle, args, out));
    }

    /// Fills ImageInfo and `text` (4096 bytes).
    pub fn ph_image_info(handle: HeapHandle, which: Which, out: Buffer, text: Buffer) callconv(.c) f64 {
        return result(imageInfo(handle, which, out, text));
    }

    /// Fills at most `capacity` Epoch records, oldest first: how many there are.
    pub fn ph_epochs(handle: HeapHandle, which: Which, out: Buffer, capacity: f64) callconv(.c) f64 {
        return result(epochs(handle, which, out, capacity));
    }
};

// ------------------------------------------------------------------ numbers and buffers

pub const whole = numbers.whole;
const exact = numbers.exact;

inline fn number(value: u64) f64 {
    @setRuntimeSafety(false);
    return @floatFromInt(@as(i64, @bitCast(value)));
}

pub fn codeOf(err: Error) f64 {
    @branchHint(.cold);
    return -@as(f64, @floatFromInt(@intFromEnum(errors.codeOf(err))));
}

/// What a function of this file returns for `Error!void`, `Error!u64` and `Error!f64`.
pub fn result(value: anytype) f64 {
    const payload = value catch |err| return codeOf(err);
    return switch (@TypeOf(payload)) {
        void => 0,
        f64 => payload,
        else => number(payload),
    };
}

pub fn refuse(what: []const u8, value: f64) f64 {
    @branchHint(.cold);
    return codeOf(fail(.INVALID_ARGUMENT, .{}, "Cannot {s} {d}: the number must be whole, not negative and " ++
        "at most 2^53", .{ what, value }));
}

fn badPointer(value: f64) f64 {
    @branchHint(.cold);
    return codeOf(fail(.BAD_POINTER, .{}, "Cannot use {d} as a pointer: a pointer is a whole number that " ++
        "this heap gave out", .{value}));
}

pub fn missingBuffer(comptime what: []const u8) f64 {
    @branchHint(.cold);
    return codeOf(fail(.INVALID_ARGUMENT, .{}, "The buffer `" ++ what ++ "` is empty", .{}));
}

/// The heap of a handle, or CLOSED: also for numbers that never were a handle.
pub inline fn lookup(handle: HeapHandle) Error!*Heap {
    if (whole(handle)) |bits| if (Heap.find(bits)) |heap| return heap;
    return closed();
}

fn closed() Error {
    @branchHint(.cold);
    return fail(.CLOSED, .{}, "The heap is closed; open it again", .{});
}

/// The heap of a handle when it may be changed.
pub inline fn writable(handle: HeapHandle) Error!*Heap {
    const heap = try lookup(handle);
    if (heap.mode == .r) return heap.readOnly();
    return heap;
}

/// A heap that memory is often taken from or given to: usually the only one.
var latest: ?*Heap = null;

/// Calls of a thread that miss `latest` before it becomes the heap that they were for. Were it so at
/// each, threads with heaps of their own would write it in turn, and each wait for its line.
const misses_max = 256;

/// The heap of a handle when it is that one, may be changed and lies where addresses are near.
inline fn lately(handle: HeapHandle) ?*Heap {
    const heap = @atomicLoad(?*Heap, &latest, .monotonic) orelse return null;
    return if (heap.alloc.gate.key == handle) heap else null;
}

inline fn missed(heap: *Heap) void {
    const present = @atomicLoad(?*Heap, &latest, .monotonic);
    if (present == heap or std.math.isNan(heap.alloc.gate.key)) return;
    if (present != null and !std.math.isNan(present.?.alloc.gate.key)) {
        const cache = threads.mine(&heap.alloc) orelse return;
        cache.misses +%= 1;
        if (cache.misses % misses_max != 0) return;
    }
    @atomicStore(?*Heap, &latest, heap, .monotonic);
}

noinline fn mallocSlow(handle: HeapHandle, size: f64) f64 {
    const heap = writable(handle) catch |err| return codeOf(err);
    missed(heap);
    const bytes = whole(size) orelse return refuse("allocate", size);
    return number(heap.alloc.malloc(bytes) catch |err| return codeOf(err));
}

noinline fn freeSlow(handle: HeapHandle, pointer: f64) f64 {
    const heap = writable(handle) catch |err| return codeOf(err);
    missed(heap);
    const address = whole(pointer) orelse return badPointer(pointer);
    heap.alloc.free(address) catch |err| return codeOf(err);
    return 0;
}

pub fn record(comptime T: type, buffer: Buffer) Error!*align(8) T {
    const bytes = buffer orelse return fail(.INVALID_ARGUMENT, .{}, "A record's buffer is empty", .{});
    return @ptrCast(@alignCast(bytes));
}

// ------------------------------------------------------------------ what takes more than a line

fn fileRead(path: Buffer, into: Buffer, len: f64) Error!u64 {
    const name: [*:0]const u8 = @ptrCast(path.?);
    const bytes = into.?[0..(whole(len) orelse 0)];
    switch (file.read(name, bytes)) {
        .bytes => |n| return n,
        .errno => |errno| return fileFailed("read", name, errno),
    }
}

fn fileWrite(path: Buffer, from: Buffer, len: f64, create: f64) Error!u64 {
    const name: [*:0]const u8 = @ptrCast(path.?);
    if (create == 2) {
        if (file.remove(name)) |errno| return fileFailed("remove", name, errno);
        return 0;
    }
    const bytes = if (from) |pointer| pointer[0..(whole(len) orelse 0)] else "";
    switch (file.write(name, bytes, create == 1)) {
        .bytes => |n| return n,
        .errno => |errno| return fileFailed("write", name, errno),
    }
}

fn fileFailed(comptime action: []const u8, path: [*:0]const u8, errno: u32) Error {
    const text = std.mem.span(path);
    const detail: errors.Detail = .{ .path = text, .errno = errno };
    const reason = os.errnoText(errno);
    return switch (@as(os.E, @enumFromInt(errno))) {
        .NOENT, .NOTDIR => fail(.NOT_FOUND, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
        .ACCES, .PERM => fail(.PERMISSION, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
        .EXIST => fail(.EXISTS, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
        .ROFS => fail(.READ_ONLY, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
        .NOSPC, .DQUOT => fail(.NO_SPACE, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
        .INVAL => fail(.INVALID_ARGUMENT, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
        else => fail(.IO, detail, "Cannot " ++ action ++ " {s}: {s}", .{ text, reason }),
    };
}

/// OpenArgs as the heap wants them; texts are cut out of `text`.
fn openOptions(args: Buffer, text: Buffer) Error!heap_room.OpenOptions {
    const in = try record(records.OpenArgs, args);
    const path_len = whole(in.path_len) orelse 0;
    const backup_len = whole(in.backup_len) orelse 0;
    const bytes: []const u8 = if (text) |pointer| pointer[0 .. path_len + backup_len] else "";
    if (bytes.len < path_len + backup_len) return fail(.INVALID_ARGUMENT, .{}, "The buffer `text` is empty", .{});
    return .{
        .path = if (path_len > 0) bytes[0..path_len] else null,
        .backup = if (backup_len > 0) bytes[path_len..] else null,
        .mode = if (in.mode == 0) .w else if (in.mode == 1) .rw else .r,
        .size = try sizeOption("size", in.size),
        .max_size = try sizeOption("maxSize", in.max_size),
        .address = try sizeOption("address", in.address),
        .tracker = if (in.tracker == 0) .auto else if (in.tracker == 1) .uffd else .checksum,
        .keep = try sizeOption("keep", in.keep),
        .log_limit = try sizeOption("logLimit", in.log_limit),
        .shared = in.shared != 0,
        .verify = in.verify != 0,
        .recover = in.recover != 0,
        .replace = in.replace != 0,
    };
}

fn sizeOption(comptime name: []const u8, value: f64) Error!u64 {
    return whole(value) orelse fail(.INVALID_ARGUMENT, .{}, "Cannot open a heap with `" ++ name ++ "` {d}: the " ++
        "number must be whole, not negative and at most 2^53", .{value});
}

fn open(args: Buffer, text: Buffer, newest: bool) Error!u64 {
    const options = try openOptions(args, text);
    const heap = if (newest) try Heap.openNewest(options) else try Heap.mopen(options);
    heap.belongToThread();
    (try record(records.OpenArgs, args)).address = number(heap.address);
    return heap.handle;
}

fn attach(text: Buffer, len: f64) Error!u64 {
    const bytes: []const u8 = if (text) |pointer| pointer[0..(whole(len) orelse 0)] else "";
    const heap = try Heap.attach(bytes);
    return heap.handle;
}

fn blockName(name: Buffer, len: f64) Error![]const u8 {
    const n = whole(len) orelse 0;
    if (name == null or n == 0 or n > blocks.name_len_max) {
        return fail(.INVALID_ARGUMENT, .{}, "Cannot use a block name of {d} bytes: a name has 1 to {d}", .{
            n, blocks.name_len_max,
        });
    }
    return name.?[0..n];
}

fn perm(handle: HeapHandle, name: Buffer, name_len: f64, size: f64, layout: f64, address: f64, out: Buffer) Error!f64 {
    const heap = try lookup(handle);
    const key = try blockName(name, name_len);
    const into = try record(records.BlockInfo, out);
    const bytes = whole(size) orelse return refuse("register a block of", size);
    const target = whole(address) orelse return badPointer(address);
    if (target != 0 and !perm_block.contains(target, bytes)) {
        return fail(.INVALID_ARGUMENT, .{ .address = target }, "Cannot register {d} bytes at 0x{x}: only the PERM " ++
            "block's memory is registered by address; pass a view for anything else", .{ bytes, target });
    }
    const block = try heap.perm(key, bytes, whole(layout) orelse 0, target);
    into.* = .{ .id = number(block.id), .address = number(block.address), .found = if (block.found) 1 else 0 };
    return 0;
}

fn global(handle: HeapHandle, name: Buffer, name_len: f64, size: f64, layout: f64, out: Buffer) Error!f64 {
    const heap = try lookup(handle);
    const key = try blockName(name, name_len);
    const into = try record(records.BlockInfo, out);
    const bytes = whole(size) orelse return refuse("make a global of", size);
    const block = try heap.global(key, bytes, whole(layout) orelse 0);
    into.* = .{ .address = number(block.address), .found = if (block.found) 1 else 0 };
    return 0;
}

fn copyBlock(heap: *Heap, id: f64, bytes: Buffer, len: f64, access: heap_room.Access) Error!void {
    const none = std.math.maxInt(u64);
    return heap.copyBlock(whole(id) orelse none, bytes, whole(len) orelse none, access);
}

fn bopen(handle: HeapHandle, args: Buffer, text: Buffer) Error!void {
    const heap = try lookup(handle);
    return heap.bopen(try openOptions(args, text));
}

fn whichOf(which: Which) heap_room.Which {
    return if (which == 0) .map else .backup;
}

fn commit(handle: HeapHandle, which: Which, out: Buffer) Error!void {
    const heap = try lookup(handle);
    const into = try record(records.Report, out);
    into.* = try heap.commit(whichOf(which));
}

fn commitFetch(commit_number: f64, out: Buffer) Error!u64 {
    const into = try record(records.Report, out);
    const outcome = try background.fetch(whole(commit_number) orelse 0) orelse return 0;
    into.* = .{
        .epoch = number(outcome.report.epoch),
        .pages = number(outcome.report.pages),
        .bytes = number(outcome.report.bytes),
        .duration_ms = @as(f64, @floatFromInt(outcome.duration_ns)) / std.time.ns_per_ms,
    };
    return 1;
}

fn restore(handle: HeapHandle, args: Buffer, out: Buffer) Error!void {
    const heap = try lookup(handle);
    const in = try record(records.RestoreArgs, args);
    const into = try record(records.Report, out);
    const epoch: ?u64 = if (in.epoch == -1) null else whole(in.epoch) orelse
        return fail(.INVALID_ARGUMENT, .{}, "Cannot restore epoch {d}: an epoch is a whole number from 1", .{in.epoch});
    into.* = try heap.restore(.{
        .epoch = epoch,
        .from = if (in.from == 1) .backup else if (in.from == 2) .map else null,
        .verify = in.verify != 0,
        .views = in.views != 0,
    });
}

fn imageInfo(handle: HeapHandle, which: Which, out: Buffer, text: Buffer) Error!void {
    const heap = try lookup(handle);
    const into = try record(records.ImageInfo, out);
    const bytes = text orelse return fail(.INVALID_ARGUMENT, .{}, "The buffer `text` is empty", .{});
    into.* = try heap.imageInfo(whichOf(which), bytes[0..4096]);
}

fn epochs(handle: HeapHandle, which: Which, out: Buffer, capacity: f64) Error!u64 {
    const heap = try lookup(handle);
    const count = whole(capacity) orelse 0;
    const into: []records.Epoch = if (count == 0) &.{} else @as([*]records.Epoch, @ptrCast(@alignCast(out orelse
        return fail(.INVALID_ARGUMENT, .{}, "The buffer `out` is empty", .{}))))[0..count];
    return heap.epochs(whichOf(which), into);
}

/// Every function of the ABI, room by room.
pub const function_sets = .{ functions, @import("image/exports.zig").functions, @import("data/exports.zig").functions };

/// 52 bits over every name, parameter and field of the ABI.
pub const abi_hash: u64 = blk: {
    @setEvalBranchQuota(1_000_000);
    var hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (describe()) |byte| hash = (hash ^ byte) *% 0x0000_0100_0000_01b3;
    break :blk (hash ^ (hash >> 52)) & ((1 << 52) - 1);
};

fn describe() []const u8 {
    var text: []const u8 = "";
    for (function_sets) |set| for (@typeInfo(set).@"struct".decls) |decl| {
        text = text ++ decl.name ++ "(";
        const info = @typeInfo(@TypeOf(@field(set, decl.name))).@"fn";
        for (info.params) |param| text = text ++ (if (param.type.? == f64) "f64," else "buffer,");
        text = text ++ ")";
    };
    for (@typeInfo(records).@"struct".decls) |decl| {
        text = text ++ decl.name ++ "{";
        for (@typeInfo(@field(records, decl.name)).@"struct".fields) |field| {
            text = text ++ field.name ++ ",";
        }
        text = text ++ "}";
    }
    for (@typeInfo(errors.Code).@"enum".fields) |field| text = text ++ field.name ++ ",";
    return text;
}

comptime {
    for (@typeInfo(records).@"struct".decls) |decl| {
        for (@typeInfo(@field(records, decl.name)).@"struct".fields) |field| {
            std.debug.assert(field.type == f64);
        }
    }
}

test {
    _ = numbers;
    _ = errors;
    _ = @import("image/image.zig");
    _ = @import("heap/belongs.zig");
    _ = @import("heap/staging.zig");
    _ = os;
    _ = @import("heap/test.zig");
    _ = @import("heap/locks.zig");
    _ = @import("tracker/tracker.zig");
    _ = @import("heap/test_async.zig");
    _ = @import("heap/test_shared.zig");
    _ = @import("permmalloc/pool.zig");
    _ = @import("permmalloc/settings.zig");
    _ = @import("permmalloc/log.zig");
    _ = @import("os/pool_file.zig");
    _ = @import("data/data.zig");
    _ = @import("test_perm.zig");
    _ = @import("capi/environment.zig");
}
