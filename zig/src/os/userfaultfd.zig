//! Write tracking by userfaultfd, Linux 6.7 and later: pages are write-protected, the kernel lifts
//! the protection by itself at the first write (WP_ASYNC), and PAGEMAP_SCAN tells which were.
//!
//! Invariant: nobody ever has to answer a fault: only asynchronous write protection is registered,
//! so closing the descriptor, or dying with it, leaves plain memory.

const std = @import("std");
const os = @import("os.zig");
const linux = std.os.linux;

const user_mode_only = 1;
const feature_wp_async = 1 << 15;
const feature_wp_unpopulated = 1 << 13;
const mode_wp = 1 << 1;

const api_ioctl = 0xc018_aa3f;
const register_ioctl = 0xc020_aa00;
const unregister_ioctl = 0x8010_aa01;
const protect_ioctl = 0xc018_aa06;

const Api = extern struct { api: u64 = 0xaa, features: u64, ioctls: u64 = 0 };
const Range = extern struct { start: u64, len: u64 };
const Register = extern struct { range: Range, mode: u64, ioctls: u64 = 0 };
const Protect = extern struct { range: Range, mode: u64 = 0 };

comptime {
    std.debug.assert(@sizeOf(Api) == 24 and @sizeOf(Register) == 32 and @sizeOf(Range) == 16 and @sizeOf(Protect) == 24);
}

pub const Userfaultfd = struct {
    fd: i32 = -1,

    /// Null where the kernel is older, or a sandbox forbids it.
    pub fn open() ?Userfaultfd {
        const flags: usize = user_mode_only | @as(u32, @bitCast(linux.O{ .CLOEXEC = true, .NONBLOCK = true }));
        const fd = linux.syscall1(.userfaultfd, flags);
        if (os.failed(fd) != null) return null;
        var self: Userfaultfd = .{ .fd = @intCast(fd) };
        var api: Api = .{ .features = feature_wp_async | feature_wp_unpopulated };
        if (os.failed(linux.ioctl(self.fd, api_ioctl, @intFromPtr(&api))) != null) {
            self.close();
            return null;
        }
        return self;
    }

    pub fn close(self: *Userfaultfd) void {
        if (self.fd >= 0) _ = linux.close(self.fd);
        self.fd = -1;
    }

    pub fn register(self: Userfaultfd, address: usize, len: usize) bool {
        var arg: Register = .{ .range = .{ .start = address, .len = len }, .mode = mode_wp };
        return os.failed(linux.ioctl(self.fd, register_ioctl, @intFromPtr(&arg))) == null;
    }

    pub fn unregister(self: Userfaultfd, address: usize, len: usize) void {
        var range: Range = .{ .start = address, .len = len };
        _ = linux.ioctl(self.fd, unregister_ioctl, @intFromPtr(&range));
    }

    /// Lifts the protection: these pages count as written from here on, and nobody faults on them.
    pub fn unprotect(self: Userfaultfd, address: usize, len: usize) bool {
        var arg: Protect = .{ .range = .{ .start = address, .len = len } };
        return os.failed(linux.ioctl(self.fd, protect_ioctl, @intFromPtr(&arg))) == null;
    }
};
