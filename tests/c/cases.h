/* The distributions of hashes.txt. Written by tests/make_hashes.py. */
static const struct {
    const char *name, *distribution;
    winit_parameters p[2]; /* [0] for the 32-bit types, [1] for float64 */
} cases[] = {
    {"bits", "bits", {
        {.loc = 0},
        {.loc = 0},
    }},
    {"uniform", "uniform", {
        {.low = -0x1.3333333333333p-2, .high = 0x1.6666666666666p-1},
        {.low = -0x1.3333333333333p-2, .high = 0x1.6666666666666p-1},
    }},
    {"normal", "normal", {
        {.loc = 0x1.47ae147ae147bp-7, .scale = 0x1.47ae147ae147bp-6},
        {.loc = 0x1.47ae147ae147bp-7, .scale = 0x1.47ae147ae147bp-6},
    }},
    {"truncated", "truncated_normal", {
        {.loc = 0x1.47ae147ae147bp-7, .scale = 0x1.47ae147ae147bp-6, .low = -0x1.0000000000000p+1, .high = 0x1.0000000000000p+1, .window = {.flip = 0, .kappa = 2147483648, .tail_step = 0x1.e8b4307d3627ap-32, .tail_start = {0x1.74bcf84b28c90p-5, 0x1.74bcf84b28c90p-5}, .t_step = 0x1.e8b4307d3627ap-32, .t_step_rest = 0x1.98c5d9f298e61p-90, .t_start = {0x1.e8b4307d3627ap-33, 0x1.e8b4307d3627ap-33}, .t_exponent = 0, .tail_exponent = 0}},
        {.loc = 0x1.47ae147ae147bp-7, .scale = 0x1.47ae147ae147bp-6, .low = -0x1.0000000000000p+1, .high = 0x1.0000000000000p+1, .window = {.flip = 0, .kappa = UINT64_C(9223372036854775808), .tail_step = 0x1.e8b4307d3627ap-64, .tail_start = {0x1.74bcf82c9d860p-5, 0x1.74bcf82c9d860p-5}, .t_step = 0x1.e8b4307d3627ap-64, .t_step_rest = 0x1.98c5d9f298e61p-122, .t_start = {0x1.e8b4307d3627ap-65, 0x1.e8b4307d3627ap-65}, .t_exponent = 0, .tail_exponent = 0}},
    }},
    {"wide", "truncated_normal", {
        {.loc = 0x0.0p+0, .scale = 0x1.0000000000000p+0, .low = -0x1.9000000000000p+6, .high = 0x1.c000000000000p+1, .window = {.flip = 1, .kappa = 2146983965, .tail_step = 0x1.ffe182436d488p-32, .tail_start = {0x1.ffe182436d488p-33, 0x1.e7dbd92a83ef6p-12}, .t_step = 0x1.ffe182436d488p-32, .t_step_rest = 0x1.15a3eb66065bfp-87, .t_start = {0x1.c496206693659p-32, 0x1.da5b0ee6cf176p-35}, .t_exponent = 0, .tail_exponent = 0}},
        {.loc = 0x0.0p+0, .scale = 0x1.0000000000000p+0, .low = -0x1.9000000000000p+6, .high = 0x1.c000000000000p+1, .window = {.flip = 1, .kappa = UINT64_C(9221225913061438727), .tail_step = 0x1.ffe182436d488p-64, .tail_start = {0x1.ffe182436d488p-65, 0x1.e7dbc92b77dd6p-12}, .t_step = 0x1.ffe182436d488p-64, .t_step_rest = 0x1.15a3eb66065bfp-119, .t_start = {0x1.d31eb6fcf813fp-64, 0x1.66165a33a9a47p-67}, .t_exponent = 0, .tail_exponent = 0}},
    }},
    {"tail", "truncated_normal", {
        {.loc = 0x1.e19999999999ap+4, .scale = 0x1.199999999999ap+0, .low = -0x1.e000000000000p+4, .high = -0x1.d000000000000p+4, .window = {.flip = 1, .kappa = 0, .tail_step = 0x1.1e485467b3656p-32, .tail_start = {0x1.1ea639d2f4dffp-33, 0x0.0p+0}, .t_step = 0x1.1e485467b3656p-644, .t_step_rest = -0x1.ffaf10e38faaap-699, .t_start = {0x1.0000000000000p+0, 0x0.0p+0}, .t_exponent = 0, .tail_exponent = 612}},
        {.loc = 0x1.e19999999999ap+4, .scale = 0x1.199999999999ap+0, .low = -0x1.e000000000000p+4, .high = -0x1.d000000000000p+4, .window = {.flip = 1, .kappa = 0, .tail_step = 0x1.1e485467b3656p-64, .tail_start = {0x1.7795b17f0b8b1p-43, 0x0.0p+0}, .t_step = 0x1.1e485467b3656p-676, .t_step_rest = -0x1.ffaf10e38faaap-731, .t_start = {0x1.0000000000000p+0, 0x0.0p+0}, .t_exponent = 0, .tail_exponent = 612}},
    }},
    {"half", "truncated_normal", {
        {.loc = 0x0.0p+0, .scale = 0x1.6666666666666p-1, .low = 0x0.0p+0, .high = INFINITY, .window = {.flip = 0, .kappa = 0, .tail_step = 0x1.0000000000000p-32, .tail_start = {0x1.0000000000000p-33, 0x0.0p+0}, .t_step = 0x1.0000000000000p-32, .t_step_rest = 0x0.0p+0, .t_start = {0x1.0000000000000p-33, 0x0.0p+0}, .t_exponent = 0, .tail_exponent = 0}},
        {.loc = 0x0.0p+0, .scale = 0x1.6666666666666p-1, .low = 0x0.0p+0, .high = INFINITY, .window = {.flip = 0, .kappa = 0, .tail_step = 0x1.0000000000000p-64, .tail_start = {0x1.0000000000000p-65, 0x0.0p+0}, .t_step = 0x1.0000000000000p-64, .t_step_rest = 0x0.0p+0, .t_start = {0x1.0000000000000p-65, 0x0.0p+0}, .t_exponent = 0, .tail_exponent = 0}},
    }},
    {"past", "truncated_normal", {
        {.loc = 0x1.47ae147ae147bp-7, .scale = 0x1.47ae147ae147bp-6, .low = -0x1.0cccccccccccdp+1, .high = 0x1.0cccccccccccdp+1, .window = {.flip = 0, .kappa = 2147483648, .tail_step = 0x1.edb4f307aecf6p-32, .tail_start = {0x1.24b0cfa3ee590p-5, 0x1.24b0cfa3ee590p-5}, .t_step = 0x1.edb4f307aecf6p-32, .t_step_rest = 0x1.7916321e1ee7dp-87, .t_start = {0x1.edb4f307aecf6p-33, 0x1.edb4f307aecf6p-33}, .t_exponent = 0, .tail_exponent = 0}},
        {.loc = 0x1.47ae147ae147bp-7, .scale = 0x1.47ae147ae147bp-6, .low = -0x1.0cccccccccccdp+1, .high = 0x1.0cccccccccccdp+1, .window = {.flip = 0, .kappa = UINT64_C(9223372036854775808), .tail_step = 0x1.edb4f307aecf6p-64, .tail_start = {0x1.24b0cf851309dp-5, 0x1.24b0cf851309dp-5}, .t_step = 0x1.edb4f307aecf6p-64, .t_step_rest = 0x1.7916321e1ee7dp-119, .t_start = {0x1.edb4f307aecf6p-65, 0x1.edb4f307aecf6p-65}, .t_exponent = 0, .tail_exponent = 0}},
    }},
};
