//! Persistent globals. A block lives outside the heap and has a shadow in it, which a commit fills
//! first; a global lives in the heap and needs no shadow. Both are found by name, in a table in the
//! heap; who has registered what in this process stands beside it in process memory.
//!
//! Invariant: an address read from the heap is range-checked before it is used, and a block's own
//! address is never stored: an image is data from a stranger.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const attachments = @import("attach.zig");
const Header = @import("header.zig").Header;
const Allocator = @import("../alloc/alloc.zig").Allocator;
const Error = errors.Error;
const fail = errors.fail;

pub const name_len_max = 1024;
pub const bucket_count = 256;
const gpa = os.page_allocator;

pub const Kind = enum(u32) { block = 1, global = 2, _ };

/// One name in the heap; its bytes follow. Addresses are absolute, 0 is none.
pub const Entry = extern struct {
    next: u64,
    hash: u64,
    size: u64,
    /// Hash of what the block is made of: another one is another block.
    layout: u64,
    /// The shadow, or the global itself.
    data: u64,
    name_len: u32,
    kind: Kind,

    fn name(self: *const Entry) []const u8 {
        return @as([*]const u8, @ptrCast(self))[@sizeOf(Entry)..][0..self.name_len];
    }
};

comptime {
    std.debug.assert(@sizeOf(Entry) == 48);
}

/// A heap's memory as blocks see it: at its own address, or built elsewhere for a restore.
pub const Memory = struct {
    /// The heap's own address, which its pointers are relative to.
    address: u64,
    /// Where that memory is in this process now.
    at: usize,
    data_offset: u64,
    /// Bytes from `address` on that may be touched.
    len: u64,

    fn pointer(self: Memory, comptime T: type, address: u64) ?*T {
        if (address % @alignOf(T) != 0) return null;
        const bytes = self.slice(address, @sizeOf(T)) orelse return null;
        return @ptrCast(@alignCast(bytes.ptr));
    }

    /// Heap data at `address`, or null when it does not lie in the data area.
    pub fn slice(self: Memory, address: u64, len: u64) ?[]u8 {
        if (address < self.address + self.data_offset) return null;
        const offset = address - self.address;
        if (offset > self.len or len > self.len - offset) return null;
        return @as([*]u8, @ptrFromInt(self.at + offset))[0..len];
    }

    fn header(self: Memory) *Header {
        return @ptrFromInt(self.at);
    }
};

pub const Stored = struct { entry: *Entry, data: []u8 };

/// The block of that name in the heap, or null. CORRUPT when the table leads nowhere.
pub fn find(memory: Memory, name: []const u8) Error!?Stored {
    const header = memory.header();
    if (header.directory == 0) return null;
    const hash = hashOf(name);
    const table = memory.pointer([bucket_count]u64, header.directory) orelse return corrupt();
    var address = table[hash % bucket_count];
    var steps: u64 = 0;
    while (address != 0) : (steps += 1) {
        if (steps > header.block_count) return corrupt();
        const entry = memory.pointer(Entry, address) orelse return corrupt();
        if (entry.name_len > name_len_max) return corrupt();
        if (memory.slice(address, @sizeOf(Entry) + @as(u64, entry.name_len)) == null) return corrupt();
        if (entry.hash == hash and std.mem.eql(u8, entry.name(), name)) {
            const data = memory.slice(entry.data, entry.size) orelse return corrupt();
            return .{ .entry = entry, .data = data };
        }
        address = entry.next;
    }
    return null;
}

fn corrupt() Error {
    return fail(.CORRUPT, .{}, "Cannot read the heap's table of blocks: an entry leads outside the heap; " ++
        "run check(), and restore an earlier epoch", .{});
}

fn hashOf(name: []const u8) u64 {
    return std.hash.XxHash3.hash(0, name);
}

/// Refuses a stored block that differs from what is registered now.
pub fn expectSame(stored: Stored, name: []const u8, kind: Kind, size: u64, layout: u64) Error!void {
    const entry = stored.entry;
    if (entry.kind != kind) {
        return fail(.BLOCK_MISMATCH, .{}, "Cannot use block \"{s}\": the heap holds it as a {s}, not as a " ++
            "{s}; use another name", .{ name, kindName(entry.kind), kindName(kind) });
    }
    // A program that knows no layouts (C) gives 0: then sizes decide.
    const other_layout = entry.layout != layout and entry.layout != 0 and layout != 0;
    if (entry.size != size or other_layout) {
        return fail(.BLOCK_MISMATCH, .{}, "Cannot use block \"{s}\": the heap holds {d} bytes of layout {x}, " ++
            "given are {d} bytes of layout {x}; give it its old type and length, or remove it with unperm()", .{
            name, entry.size, entry.layout, size, layout,
        });
    }
}

fn kindName(kind: Kind) []const u8 {
    return switch (kind) {
        .block => "block outside the heap",
        .global => "global inside the heap",
        _ => "block of an unknown kind",
    };
}

/// Proves that every name leads to live allocations large enough for it, and that none is lost.
pub fn checkTable(memory: Memory, alloc: *Allocator) Error!void {
    const header = memory.header();
    if (header.directory == 0) return if (header.block_count == 0) {} else corrupt();
    const table = memory.pointer([bucket_count]u64, header.directory) orelse return corrupt();
    if (try usable(alloc, header.directory) < @sizeOf([bucket_count]u64)) return corrupt();
    var count: u64 = 0;
    for (table, 0..) |head, bucket| {
        var address = head;
        while (address != 0) : (count += 1) {
            if (count > header.block_count) return corrupt();
            const entry = memory.pointer(Entry, address) orelse return corrupt();
            if (entry.name_len > name_len_max or entry.hash % bucket_count != bucket) return corrupt();
            if (try usable(alloc, address) < @sizeOf(Entry) + @as(u64, entry.name_len)) return corrupt();
            if (hashOf(entry.name()) != entry.hash) return corrupt();
            if (try usable(alloc, entry.data) < entry.size) return corrupt();
            address = entry.next;
        }
    }
    if (count != header.block_count) return corrupt();
}

/// What the table itself takes of the heap, as pairs of address and bytes that the program may have
/// filled with pointers: those of blocks and globals, and 0 for directory and entries. How many
/// there are; fills `out` as far as it goes.
pub fn ownBlocks(memory: Memory, out: [][2]f64) Error!u64 {
    const header = memory.header();
    if (header.directory == 0) return 0;
    const table = memory.pointer([bucket_count]u64, header.directory) orelse return corrupt();
    var count: u64 = 0;
    tell(out, &count, header.directory, 0);
    for (table) |head| {
        var address = head;
        while (address != 0) {
            if (count > 2 * header.block_count) return corrupt();
            const entry = memory.pointer(Entry, address) orelse return corrupt();
            tell(out, &count, address, 0);
            tell(out, &count, entry.data, entry.size);
            address = entry.next;
        }
    }
    return count;
}

fn tell(out: [][2]f64, count: *u64, address: u64, size: u64) void {
    if (count.* < out.len) out[count.*] = .{ @floatFromInt(address), @floatFromInt(size) };
    count.* += 1;
}

fn usable(alloc: *Allocator, address: u64) Error!u64 {
    return alloc.usableSize(address) catch return corrupt();
}

/// The memory as it is after an allocation, which may have grown the heap past what it was told.
fn grown(memory: Memory, alloc: *const Allocator) Memory {
    var now = memory;
    now.len = memory.data_offset + alloc.capacityBytes();
    return now;
}

/// Adds a name with zeroed data to the heap. The caller has seen that it is not there.
pub fn create(memory: Memory, alloc: *Allocator, name: []const u8, kind: Kind, size: u64, layout: u64) Error!Stored {
    std.debug.assert(name.len > 0 and name.len <= name_len_max);
    const header = memory.header();
    if (header.directory == 0) header.directory = try alloc.calloc(bucket_count, @sizeOf(u64));
    const table = grown(memory, alloc).pointer([bucket_count]u64, header.directory) orelse return corrupt();

    const address = try alloc.calloc(1, @sizeOf(Entry) + name.len);
    errdefer alloc.free(address) catch {};
    const data = try alloc.calloc(1, @max(size, 1));
    const entry: *Entry = @ptrFromInt(address);
    const hash = hashOf(name);
    entry.* = .{
        .next = table[hash % bucket_count],
        .hash = hash,
        .size = size,
        .layout = layout,
        .data = data,
        .name_len = @intCast(name.len),
        .kind = kind,
    };
    const bytes: [*]u8 = @ptrFromInt(address + @sizeOf(Entry));
    @memcpy(bytes[0..name.len], name);
    table[hash % bucket_count] = address;
    header.block_count += 1;
    const data_bytes: [*]u8 = @ptrFromInt(data);
    return .{ .entry = entry, .data = data_bytes[0..size] };
}

/// Takes a name and its data out of the heap; false when it was not there.
pub fn remove(memory: Memory, alloc: *Allocator, name: []const u8) Error!bool {
    const found = try find(memory, name) orelse return false;
    const header = memory.header();
    const table = memory.pointer([bucket_count]u64, header.directory) orelse return corrupt();
    const address = @intFromPtr(found.entry) - memory.at + memory.address;
    var link: *u64 = &table[found.entry.hash % bucket_count];
    while (link.* != address) {
        const entry = memory.pointer(Entry, link.*) orelse return corrupt();
        link = &entry.next;
    }
    const data = found.entry.data;
    link.* = found.entry.next;
    header.block_count -= 1;
    try alloc.free(data);
    try alloc.free(address);
    return true;
}

// ------------------------------------------------------------------ globals of C, known by their address

/// What the name of a block begins with that was registered by its address alone; the address in
/// hexadecimal follows.
const address_prefix = "perm@0x";

/// Memory of the program, as C registers it.
pub const Global = struct { address: usize, size: u64 };

pub const AddressName = struct {
    buffer: [address_prefix.len + 16]u8,
    len: usize,

    pub fn of(address: usize) AddressName {
        var self: AddressName = .{ .buffer = undefined, .len = 0 };
        self.len = (std.fmt.bufPrint(&self.buffer, address_prefix ++ "{x}", .{address}) catch unreachable).len;
        return self;
    }

    pub fn slice(self: *const AddressName) []const u8 {
        return self.buffer[0..self.len];
    }
};

fn addressOfName(name: []const u8) ?usize {
    if (!std.mem.startsWith(u8, name, address_prefix)) return null;
    return std.fmt.parseInt(usize, name[address_prefix.len..], 16) catch null;
}

/// Refuses a program whose globals are not where the heap knew them: some that are stored are not
/// registered, and some that are registered are not stored. Whatever points to them would lead astray.
/// A stored address is compared, never followed. `more` is about to be registered.
pub fn expectInPlace(memory: Memory, registry: *const Registry, more: []const Global) Error!void {
    const missing = missing: {
        for (more) |one| {
            const name = AddressName.of(one.address);
            if (try find(memory, name.slice()) == null) break :missing one.address;
        }
        for (registry.list.items) |registration| {
            if (!registration.live) continue;
            const address = addressOfName(registration.name) orelse continue;
            if (try find(memory, registration.name) == null) break :missing address;
        }
        return;
    };
    const header = memory.header();
    if (header.directory == 0) return;
    const table = memory.pointer([bucket_count]u64, header.directory) orelse return corrupt();
    var steps: u64 = 0;
    for (table) |head| {
        var address = head;
        while (address != 0) : (steps += 1) {
            if (steps > header.block_count) return corrupt();
            const entry = memory.pointer(Entry, address) orelse return corrupt();
            if (entry.name_len > name_len_max) return corrupt();
            if (memory.slice(address, @sizeOf(Entry) + @as(u64, entry.name_len)) == null) return corrupt();
            address = entry.next;
            const stored = addressOfName(entry.name()) orelse continue;
            if (registry.findName(entry.name()) != null) continue;
            for (more) |one| {
                if (one.address == stored) break;
            } else return fail(.BLOCK_MISMATCH, .{ .address = missing }, "Cannot use the globals that the heap holds: it " ++
                "knows {d} bytes at 0x{x}, this program registers 0x{x}, so it was loaded elsewhere (address space " ++
                "randomization) or built anew, and pointers to them would lead astray; run it under `setarch -R` or after " ++
                "`deno task tune --apply`, link it with -no-pie, or register by name, with perm_named()", .{
                entry.size, stored, missing,
            });
        }
    }
}

/// Copies only the 4 KiB pieces that differ: a shadow that did not change is not written.
pub fn copyWhereDifferent(to: []u8, from: []const u8) void {
    std.debug.assert(to.len == from.len);
    var at: usize = 0;
    while (at < to.len) : (at += os.page_size) {
        const end = @min(at + os.page_size, to.len);
        if (!std.mem.eql(u8, to[at..end], from[at..end])) @memcpy(to[at..end], from[at..end]);
    }
}

/// A block that this process has registered.
pub const Registration = struct {
    name: []u8,
    size: u64,
    layout: u64,
    /// Address of library or C memory, copied by commits; 0 for a JavaScript buffer, which the
    /// thread that registered it copies.
    target: usize,
    thread: usize,
    /// False after `unperm`: ids are positions and stay what they were.
    live: bool,
    /// Its shadow was made by a restore to an epoch that did not have the block: the target keeps
    /// its value, and the next commit stores it.
    fresh: bool = false,
    /// A JavaScript buffer of an attached thread: its registration ends with the attachment.
    guest: bool = false,

    fn targetBytes(self: Registration) []u8 {
        return @as([*]u8, @ptrFromInt(self.target))[0..self.size];
    }
};

/// A registered block's shadow; one that a restore found no room for is made.
pub fn shadowOf(memory: Memory, alloc: *Allocator, registration: Registration) Error!Stored {
    if (try find(memory, registration.name)) |stored| return stored;
    if (!registration.fresh) return corrupt();
    return create(memory, alloc, registration.name, .block, registration.size, registration.layout);
}

/// What a process has registered with one heap. An id is a position in the list.
pub const Registry = struct {
    list: std.ArrayList(Registration) = .empty,

    pub fn deinit(self: *Registry) void {
        for (self.list.items) |registration| gpa.free(registration.name);
        self.list.deinit(gpa);
        self.* = .{};
    }

    pub fn findName(self: *const Registry, name: []const u8) ?usize {
        for (self.list.items, 0..) |registration, id| {
            if (registration.live and std.mem.eql(u8, registration.name, name)) return id;
        }
        return null;
    }

    pub fn add(self: *Registry, name: []const u8, registration: Registration) Error!usize {
        var value = registration;
        value.name = gpa.dupe(u8, name) catch return noMemory(name);
        errdefer gpa.free(value.name);
        self.list.append(gpa, value) catch return noMemory(name);
        return self.list.items.len - 1;
    }

    fn noMemory(name: []const u8) Error {
        return fail(.OUT_OF_MEMORY, .{}, "Cannot register block \"{s}\": no process memory left", .{name});
    }

    pub fn get(self: *const Registry, id: u64) ?Registration {
        if (id >= self.list.items.len or !self.list.items[id].live) return null;
        return self.list.items[id];
    }

    /// Ends what threads registered that have detached since, or ended.
    pub fn prune(self: *Registry, heap: u64) void {
        for (self.list.items) |*registration| {
            if (!registration.live or !registration.guest) continue;
            if (!attachments.has(heap, registration.thread)) registration.live = false;
        }
    }

    /// UNSUPPORTED when a JavaScript buffer of another thread would miss this commit or restore.
    pub fn expectThread(self: *const Registry, comptime action: []const u8, thread: usize) Error!void {
        for (self.list.items) |registration| {
            if (!registration.live or registration.target != 0 or registration.thread == thread) continue;
            return fail(.UNSUPPORTED, .{}, "Cannot " ++ action ++ " from this thread: block \"{s}\" is a " ++
                "JavaScript buffer of another; " ++ action ++ " there, or keep the data in a global()", .{registration.name});
        }
    }

    /// Copies each native block to its shadow.
    pub fn store(self: *const Registry, memory: Memory, alloc: *Allocator) Error!void {
        for (self.list.items) |registration| {
            if (!registration.live or registration.target == 0) continue;
            const stored = try shadowOf(memory, alloc, registration);
            if (stored.data.len != registration.size) return corrupt();
            copyWhereDifferent(stored.data, registration.targetBytes());
        }
    }

    /// Refuses a heap (built for a restore) whose blocks differ from what is registered.
    pub fn expectFits(self: *const Registry, memory: Memory) Error!void {
        try expectInPlace(memory, self, &.{});
        for (self.list.items) |registration| {
            if (!registration.live) continue;
            const stored = try find(memory, registration.name) orelse continue;
            try expectSame(stored, registration.name, .block, registration.size, registration.layout);
        }
    }

    /// After a restore: fills native blocks from their shadows and makes shadows that this epoch
    /// did not have yet.
    pub fn load(self: *Registry, memory: Memory, alloc: *Allocator) Error!void {
        for (self.list.items) |*registration| {
            if (!registration.live) continue;
            const found = try find(grown(memory, alloc), registration.name);
            registration.fresh = found == null;
            const stored = found orelse {
                _ = create(memory, alloc, registration.name, .block, registration.size, registration.layout) catch |err| switch (err) {
                    // The epoch's heap is full. The heap is whole without it, and the next commit tries again.
                    error.OUT_OF_MEMORY => {},
                    else => return err,
                };
                continue;
            };
            if (registration.target != 0) @memcpy(registration.targetBytes(), stored.data);
        }
    }
};
