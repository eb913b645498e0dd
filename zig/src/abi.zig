//! What TypeScript calls. Every number crosses as f64 (exact below 2^53: 2–4 ns a call in both
//! runtimes), text and records as buffers. A function returns its result, or the negative of an
//! error code; what the error is about waits in `ph_error`. `symbols.zig` turns the declarations of
//! this file into `ffi/symbols.ts`; there is no second list.
//!
//! Invariant: whatever numbers arrive, nothing here crashes.

const std = @import("std");
const errors = @import("errors.zig");
const os = @import("os/os.zig");

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
    /// `address` on that belongs to the heap (views may lie only below `address + span`).
    pub const HeapInfo = extern struct {
        address: f64 = 0,
        span: f64 = 0,
        capacity: f64 = 0,
        max_size: f64 = 0,
        used: f64 = 0,
        epoch: f64 = 0,
        mode: f64 = 0,
        resumed: f64 = 0,
        tracker: f64 = 0,
        attached: f64 = 0,
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
        mode: f64 = 0,
        base_bytes: f64 = 0,
        log_bytes: f64 = 0,
        epochs: f64 = 0,
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

    /// Lengths are of the text buffer: message first, then path.
    pub const ErrorInfo = extern struct {
        code: f64 = 0,
        errno: f64 = 0,
        address: f64 = 0,
        message_len: f64 = 0,
        path_len: f64 = 0,
    };
};

/// JavaScript memory, valid during the call only. Null when an empty buffer was passed.
pub const Buffer = ?[*]u8;

/// A generation-stamped reference to a heap of this process: its control page's address, the low
/// 12 bits its generation. What is not such a reference is CLOSED, whatever it is.
pub const HeapHandle = f64;

/// Which image of a heap: 0 map file, 1 backup file.
pub const Which = f64;

pub const functions = struct {
    // ---- errors and files
    /// The calling thread's last error. Fills ErrorInfo and `text` (2048 bytes).
    pub fn ph_error(info: Buffer, text: Buffer) callconv(.c) f64 {
        const record = errors.last() orelse return 0;
        const out: *align(1) records.ErrorInfo = @ptrCast(info.?);
        out.* = .{
            .code = @floatFromInt(@intFromEnum(record.code)),
            .errno = @floatFromInt(record.errno),
            .address = @floatFromInt(record.address),
            .message_len = @floatFromInt(record.message_len),
            .path_len = @floatFromInt(record.path_len),
        };
        @memcpy(text.?[0..record.message_len], record.message[0..record.message_len]);
        @memcpy(text.?[record.message_len..][0..record.path_len], record.path[0..record.path_len]);
        return 1;
    }

    /// Reads a small file (a kernel setting) whole: bytes read. `path` ends with a zero byte.
    pub fn ph_file_read(path: Buffer, into: Buffer, len: f64) callconv(.c) f64 {
        return todo(.{ path, into, len });
    }

    /// Writes a small file: with `create` 1 anew and synced, with 0 over what exists.
    pub fn ph_file_write(path: Buffer, from: Buffer, len: f64, create: f64) callconv(.c) f64 {
        return todo(.{ path, from, len, create });
    }

    // ---- heaps
    /// PERM's mopen. `args`: OpenArgs. `text`: the map file's path. Returns a heap handle.
    pub fn ph_mopen(args: Buffer, text: Buffer) callconv(.c) f64 {
        return todo(.{ args, text });
    }

    /// Heap.open: resumes from whichever image holds the newest intact commit, else makes a new heap.
    pub fn ph_open(args: Buffer, text: Buffer) callconv(.c) f64 {
        return todo(.{ args, text });
    }

    /// Closes without committing; BUSY while another living thread is attached.
    pub fn ph_close(heap: HeapHandle) callconv(.c) f64 {
        return todo(.{heap});
    }

    /// The heap of this process that `text` (of `len` bytes, from `ph_handle_text`) names; attaches
    /// the calling thread until `ph_detach` or its end. Returns a heap handle.
    pub fn ph_attach(text: Buffer, len: f64) callconv(.c) f64 {
        return todo(.{ text, len });
    }

    pub fn ph_detach(heap: HeapHandle) callconv(.c) f64 {
        return todo(.{heap});
    }

    /// Writes the heap's handle as text (64 bytes at most): its length.
    pub fn ph_handle_text(heap: HeapHandle, text: Buffer) callconv(.c) f64 {
        return todo(.{ heap, text });
    }

    /// Fills HeapInfo.
    pub fn ph_info(heap: HeapHandle, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, out });
    }

    /// Fills Stats; walks the metadata.
    pub fn ph_stats(heap: HeapHandle, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, out });
    }

    /// Walks and verifies all metadata: 0, or CORRUPT with what is wrong.
    pub fn ph_check(heap: HeapHandle) callconv(.c) f64 {
        return todo(.{heap});
    }

    pub fn ph_grow(heap: HeapHandle, size: f64) callconv(.c) f64 {
        return todo(.{ heap, size });
    }

    // ---- memory: pointers are addresses; 0 is null
    pub fn ph_malloc(heap: HeapHandle, size: f64) callconv(.c) f64 {
        return todo(.{ heap, size });
    }

    pub fn ph_calloc(heap: HeapHandle, count: f64, size: f64) callconv(.c) f64 {
        return todo(.{ heap, count, size });
    }

    pub fn ph_realloc(heap: HeapHandle, pointer: f64, size: f64) callconv(.c) f64 {
        return todo(.{ heap, pointer, size });
    }

    pub fn ph_free(heap: HeapHandle, pointer: f64) callconv(.c) f64 {
        return todo(.{ heap, pointer });
    }

    pub fn ph_aligned_alloc(heap: HeapHandle, alignment: f64, size: f64) callconv(.c) f64 {
        return todo(.{ heap, alignment, size });
    }

    pub fn ph_usable_size(heap: HeapHandle, pointer: f64) callconv(.c) f64 {
        return todo(.{ heap, pointer });
    }

    /// `count` blocks of `size` bytes, addresses as f64 into `out`; all or none.
    pub fn ph_malloc_many(heap: HeapHandle, size: f64, count: f64, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, size, count, out });
    }

    /// Frees the `count` addresses (f64) in `pointers`; on a bad one stops there: those before it
    /// are freed, and the error's address names it.
    pub fn ph_free_many(heap: HeapHandle, pointers: Buffer, count: f64) callconv(.c) f64 {
        return todo(.{ heap, pointers, count });
    }

    /// 0 when `[address, address + len)` is heap memory that may be viewed, else BAD_POINTER.
    pub fn ph_range(heap: HeapHandle, address: f64, len: f64) callconv(.c) f64 {
        return todo(.{ heap, address, len });
    }

    pub fn ph_root(heap: HeapHandle) callconv(.c) f64 {
        return todo(.{heap});
    }

    pub fn ph_root_set(heap: HeapHandle, pointer: f64) callconv(.c) f64 {
        return todo(.{ heap, pointer });
    }

    // ---- blocks
    /// Registers a persistent global by name. `address` is the block's own when it is library or C
    /// memory (native code copies it at each commit), 0 when it is a JavaScript buffer (the caller
    /// copies with `ph_block_store`, from the thread that registered it). Fills BlockInfo; a native
    /// block that the heap held is filled at once.
    pub fn ph_perm(heap: HeapHandle, name: Buffer, name_len: f64, size: f64, layout: f64, address: f64, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, name, name_len, size, layout, address, out });
    }

    /// Ends a registration and removes the stored block; NOT_FOUND when the heap has none.
    pub fn ph_unperm(heap: HeapHandle, name: Buffer, name_len: f64) callconv(.c) f64 {
        return todo(.{ heap, name, name_len });
    }

    /// Copies a JavaScript buffer into the shadow of block `id`, only where it differs.
    pub fn ph_block_store(heap: HeapHandle, id: f64, from: Buffer, len: f64) callconv(.c) f64 {
        return todo(.{ heap, id, from, len });
    }

    pub fn ph_block_load(heap: HeapHandle, id: f64, into: Buffer, len: f64) callconv(.c) f64 {
        return todo(.{ heap, id, into, len });
    }

    /// A named persistent array that lives in the heap. Fills BlockInfo.
    pub fn ph_global(heap: HeapHandle, name: Buffer, name_len: f64, size: f64, layout: f64, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, name, name_len, size, layout, out });
    }

    /// The PERM block's memory: `size` more bytes, zeroed, 16-aligned, of library memory that stays
    /// for the life of the process. Returns its address; with 0 the address of the block's start.
    pub fn ph_static(size: f64) callconv(.c) f64 {
        return todo(.{size});
    }

    // ---- images and commits
    /// PERM's bopen on a heap. `args`: OpenArgs (mode, keep, log_limit, verify, recover, replace).
    pub fn ph_bopen(heap: HeapHandle, args: Buffer, text: Buffer) callconv(.c) f64 {
        return todo(.{ heap, args, text });
    }

    pub fn ph_bclose(heap: HeapHandle) callconv(.c) f64 {
        return todo(.{heap});
    }

    /// Commits to the map file (0) or the backup file (1). Fills Report.
    pub fn ph_commit(heap: HeapHandle, which: Which, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, which, out });
    }

    /// `args`: RestoreArgs. Fills Report. The heap may have moved: read HeapInfo again.
    pub fn ph_restore(heap: HeapHandle, args: Buffer, out: Buffer) callconv(.c) f64 {
        return todo(.{ heap, args, out });
    }

    /// Fills ImageInfo and `text` (4096 bytes).
    pub fn ph_image_info(heap: HeapHandle, which: Which, out: Buffer, text: Buffer) callconv(.c) f64 {
        return todo(.{ heap, which, out, text });
    }

    /// Fills at most `capacity` Epoch records, oldest first: how many there are.
    pub fn ph_epochs(heap: HeapHandle, which: Which, out: Buffer, capacity: f64) callconv(.c) f64 {
        return todo(.{ heap, which, out, capacity });
    }
};

fn todo(arguments: anytype) f64 {
    _ = arguments;
    return result(fail(.UNSUPPORTED, .{}, "Not built yet", .{}));
}

fn result(err: Error) f64 {
    return -@as(f64, @floatFromInt(@intFromEnum(errors.codeOf(err))));
}

/// 52 bits over every name, parameter and field of the ABI.
pub const abi_hash: u64 = blk: {
    @setEvalBranchQuota(200_000);
    var hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (describe()) |byte| hash = (hash ^ byte) *% 0x0000_0100_0000_01b3;
    break :blk (hash ^ (hash >> 52)) & ((1 << 52) - 1);
};

fn describe() []const u8 {
    var text: []const u8 = "";
    for (@typeInfo(functions).@"struct".decls) |decl| {
        text = text ++ decl.name ++ "(";
        const info = @typeInfo(@TypeOf(@field(functions, decl.name))).@"fn";
        for (info.params) |param| text = text ++ (if (param.type.? == f64) "f64," else "buffer,");
        text = text ++ ")";
    }
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

fn ph_abi() callconv(.c) f64 {
    return @floatFromInt(abi_hash);
}

comptime {
    @export(&ph_abi, .{ .name = "ph_abi" });
    for (@typeInfo(functions).@"struct".decls) |decl| {
        @export(&@field(functions, decl.name), .{ .name = decl.name });
    }
    for (@typeInfo(records).@"struct".decls) |decl| {
        for (@typeInfo(@field(records, decl.name)).@"struct".fields) |field| {
            std.debug.assert(field.type == f64);
        }
    }
}

/// An error in here is a bug of ours. The host's runtime must not print for us nor unwind through
/// us: stop where we stand.
pub const panic = std.debug.no_panic;

test {
    _ = errors;
    _ = os;
}
