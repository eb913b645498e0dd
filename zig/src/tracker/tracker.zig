//! What tells which pages may have changed since the last commit. A tracker gives supersets: the
//! image compares every page it is given with its checksum, so all trackers lead to the same bytes.
//!
//! Invariant: no page that differs from an image is missing from that image's pending set after
//! `collect`; where the system cannot tell, `compare_all` is set instead.

const std = @import("std");
const errors = @import("../errors.zig");
const pagemap = @import("../os/pagemap.zig");
const image_room = @import("../image/image.zig");
const os = @import("../os/os.zig");
const Image = image_room.Image;
const PageRange = image_room.PageRange;
const fail = errors.fail;

pub const Wanted = enum { auto, uffd, checksum };

/// Numbers of the ABI.
pub const Kind = enum(u8) { uffd = 1, checksum = 2 };

pub const Tracker = struct {
    kind: Kind,
    pagemap: pagemap.Pagemap,

    pub fn init(wanted: Wanted) errors.Error!Tracker {
        if (wanted == .uffd) {
            return fail(.UNSUPPORTED, .{}, "Cannot track pages with userfaultfd: this version has the checksum " ++
                "tracker only; leave `tracker` out or set it to \"checksum\"", .{});
        }
        return .{ .kind = .checksum, .pagemap = .open() };
    }

    pub fn deinit(self: *Tracker) void {
        self.pagemap.close();
    }

    /// Adds the pages of `used` that the process wrote to the pending set of each open image.
    /// `address` is where page 0 lies. Called while the heap is held still.
    pub fn collect(self: *Tracker, address: usize, used: []const PageRange, images: [2]?*Image) void {
        const Sink = struct {
            address: usize,
            images: [2]?*Image,

            fn add(sink: @This(), range: pagemap.Range) void {
                const first = (range.start - sink.address) / os.page_size;
                const count = (range.end - range.start) / os.page_size;
                for (sink.images) |image| if (image) |im| im.pending.setRange(first, count);
            }
        };
        const sink: Sink = .{ .address = address, .images = images };
        for (used) |range| {
            const start = address + range.first * os.page_size;
            const end = start + range.count * os.page_size;
            if (self.pagemap.privatePages(start, end, sink, Sink.add)) continue;
            for (images) |image| if (image) |im| {
                im.compare_all = true;
            };
        }
    }
};
