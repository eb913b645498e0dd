//! Writes `ffi/symbols.ts` from the declarations in abi.zig. Run by `zig build symbols`.

const std = @import("std");
const abi = @import("abi.zig");
const errors = @import("errors.zig");

const head =
    \\// Generated from zig/src/abi.zig by `deno task build`. Do not edit.
    \\
    \\/** What a parameter of a native function is: a number, or JavaScript memory for the call. */
    \\export type NativeType = "f64" | "buffer";
    \\
    \\
;

const late_head =
    \\type Call = (...args: (number | Uint8Array | Float64Array | null)[]) => number;
    \\
    \\/**
    \\ * Functions that call `seldom` until `bind` gives them a better one. Each is a literal of its own:
    \\ * a runtime calls fast where it has only seen one function called. `+` says that the result is a
    \\ * number whoever gave it, for V8 puts what may be anything into an object.
    \\ */
    \\export const late: Record<
    \\  keyof typeof symbols,
    \\  (seldom: Call, bind: () => Call | undefined) => Call
    \\> = {
    \\
;

fn lateOne(comptime name: []const u8, comptime count: usize) []const u8 {
    var names: []const u8 = "";
    for (0..count) |i| names = names ++ (if (i == 0) "" else ", ") ++ .{'a' + i};
    const call = "often(" ++ names ++ ")";
    return "  " ++ name ++ ": (seldom, bind, often?: Call) => (" ++ names ++ ") =>\n    often !== undefined\n" ++
        "      ? " ++ call ++ "\n      : (often = bind()) !== undefined\n      ? " ++ call ++
        "\n      : +seldom(" ++ names ++ "),\n";
}

const text = blk: {
    @setEvalBranchQuota(1_000_000);
    var out: []const u8 = head;
    out = out ++ "/** Parameters of every native function; each returns an f64. */\n";
    out = out ++ "export const symbols = {\n  ph_abi: [],\n";
    for (abi.function_sets) |set| for (@typeInfo(set).@"struct".decls) |decl| {
        out = out ++ "  " ++ decl.name ++ ": [";
        const info = @typeInfo(@TypeOf(@field(set, decl.name))).@"fn";
        for (info.params, 0..) |param, i| {
            if (i != 0) out = out ++ ", ";
            out = out ++ (if (param.type.? == f64) "\"f64\"" else "\"buffer\"");
        }
        out = out ++ "],\n";
    };
    out = out ++ "} as const satisfies Record<string, readonly NativeType[]>;\n\n";
    out = out ++ late_head ++ lateOne("ph_abi", 0);
    for (abi.function_sets) |set| for (@typeInfo(set).@"struct".decls) |decl| {
        out = out ++ lateOne(decl.name, @typeInfo(@TypeOf(@field(set, decl.name))).@"fn".params.len);
    };
    out = out ++ "};\n\n";
    out = out ++ "/** Fields of the records that cross as a Float64Array, in order. */\nexport const records = {\n";
    for (@typeInfo(abi.records).@"struct".decls) |decl| {
        out = out ++ "  " ++ decl.name ++ ": [";
        for (@typeInfo(@field(abi.records, decl.name)).@"struct".fields, 0..) |field, i| {
            if (i != 0) out = out ++ ", ";
            out = out ++ "\"" ++ field.name ++ "\"";
        }
        out = out ++ "],\n";
    }
    out = out ++ "} as const satisfies Record<string, readonly string[]>;\n\n";
    out = out ++ "/** Error codes; a native function returns the negative of the index. */\nexport const codes = [\n  \"\",\n";
    for (@typeInfo(errors.Code).@"enum".fields) |field| {
        out = out ++ "  \"" ++ field.name ++ "\",\n";
    }
    out = out ++ "] as const;\n\n";
    out = out ++ std.fmt.comptimePrint("/** What `ph_abi` of a library that fits these tables returns. */\nexport const abiHash = 0x{x};\n", .{abi.abi_hash});
    break :blk out;
};

pub fn main() !void {
    var rest: []const u8 = text;
    while (rest.len > 0) {
        const n = std.os.linux.write(1, rest.ptr, rest.len);
        if (std.os.linux.errno(n) != .SUCCESS) return error.WriteFailed;
        rest = rest[n..];
    }
}
