//! The first page of a heap: who it is, where it belongs, and the two pointers everything
//! persistent hangs from. The allocator's header follows on the next page.
//!
//! Invariant: nothing in here belongs to an image or to a process, so committing dirties nothing.

const std = @import("std");
const os = @import("../os/os.zig");
const errors = @import("../errors.zig");
const fail = errors.fail;

pub const magic: u64 = std.mem.readInt(u64, "PERMHEAP", .little);
pub const layout_version = 1;

pub const Header = extern struct {
    magic: u64,
    layout_version: u32,
    header_size: u32,
    uuid: [16]u8,
    /// Where the heap is mapped, always.
    address: u64,
    /// Bytes of data it may grow to; fixes the layout of the allocator's tables.
    max_size: u64,
    /// One persistent pointer of the program's, for those that need no more.
    root: u64,
    /// Address of the table of block names (blocks.zig), 0 while there are none.
    directory: u64,
    block_count: u64,
    reserved: [440]u8,

    pub fn init(uuid: [16]u8, address: u64, max_size: u64) Header {
        return .{
            .magic = magic,
            .layout_version = layout_version,
            .header_size = @sizeOf(Header),
            .uuid = uuid,
            .address = address,
            .max_size = max_size,
            .root = 0,
            .directory = 0,
            .block_count = 0,
            .reserved = @splat(0),
        };
    }

    /// Checks the header of a heap that an image brought, against what the image says of it.
    pub fn validate(self: *const Header, path: []const u8, uuid: [16]u8, address: u64, max_size: u64) errors.Error!void {
        if (self.magic != magic or self.header_size != @sizeOf(Header)) {
            return fail(.CORRUPT, .{ .path = path }, "Cannot open the heap in \"{s}\": its first page is no " ++
                "heap header; restore an earlier epoch or another image", .{path});
        }
        if (self.layout_version != layout_version) {
            return fail(.BAD_VERSION, .{ .path = path }, "Cannot open the heap in \"{s}\": its layout is " ++
                "version {d}, this library reads version {d}", .{ path, self.layout_version, layout_version });
        }
        if (!std.mem.eql(u8, &self.uuid, &uuid) or self.address != address or self.max_size != max_size) {
            return fail(.CORRUPT, .{ .path = path }, "Cannot open the heap in \"{s}\": its header and the " ++
                "image's disagree about which heap it is; restore an earlier epoch or another image", .{path});
        }
    }
};

comptime {
    std.debug.assert(@sizeOf(Header) == 512);
    std.debug.assert(@offsetOf(Header, "uuid") == 16);
    std.debug.assert(@offsetOf(Header, "address") == 32);
    std.debug.assert(@offsetOf(Header, "root") == 48);
    std.debug.assert(@offsetOf(Header, "directory") == 56);
    std.debug.assert(@offsetOf(Header, "block_count") == 64);
    std.debug.assert(@sizeOf(Header) <= os.page_size);
}
