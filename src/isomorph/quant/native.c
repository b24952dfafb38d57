/* The searches of encode.py in C, with the same bits.

Groups of elements lie side by side in lanes, so every operation of the search is done for LANES groups at once while each group keeps the order of its own
operations, as encode.py has it; where a comment is missing here, the function of the same name there has it. Compile without contraction of multiplications
and additions. No more than a C compiler is needed: nothing here knows of Python, and the library is called through ctypes.
*/
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 256
#define NEGLIGIBLE 1e-15f
#define EACH for (int lane = 0; lane < LANES; lane++)

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static __inline
#endif
/* One body for three generations of processors; which of them runs is settled when the library is loaded. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
EXPORT void *PyInit__native(void) { return 0; }
#else
#define EXPORT __attribute__((visibility("default")))
#endif

typedef float Lanes[LANES];

/* ---- numbers */

INLINE int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

INLINE float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE int32_t nearest(float value) { return (bits_of(value + 12582912.0f) & 0x007fffff) - 0x00400000; }

INLINE int32_t clipped(int32_t value, int32_t least, int32_t most) { return value < least ? least : value > most ? most : value; }

INLINE float clipped_nearest(float value, int32_t least, int32_t most) { return (float)clipped(nearest(value), least, most); }

/* float32 to float16, to nearest, ties to even */
INLINE uint16_t half_of(float value) {
    uint32_t bits = (uint32_t)bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) return (uint16_t)(sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 | (magnitude >> 13 & 0x3ff) : 0));
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) {                                 /* adding one half brings the last bit of a subnormal float16 to the end of the mantissa */
        return (uint16_t)(sign | (uint32_t)(bits_of(of_bits(magnitude) + 0.5f) - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

INLINE float of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    if (exponent == 31) return of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent) return of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 5.9604644775390625e-08f;
    return sign ? -value : value;
}

INLINE float store_half(uint8_t *place, float value) {
    uint16_t half = half_of(value);
    memcpy(place, &half, 2);
    return of_half(half);
}

/* The element of greatest magnitude, the first of several. */
INLINE float greatest(int n, const float *values) {
    float most = 0, found = 0;
    for (int i = 0; i < n; i++) {
        float magnitude = fabsf(values[i]);
        if (magnitude > most) { most = magnitude; found = values[i]; }
    }
    return found;
}

/* ---- searches in lanes: codes are whole floats */

INLINE void load(int n, const float *groups, Lanes *x) {
    for (int i = 0; i < n; i++) EACH x[i][lane] = groups[lane * n + i];
}

INLINE void error_of(int n, const Lanes *x, const Lanes *w, const Lanes *codes, const float *scale, const float *minimum, int absolute, float *error) {
    EACH error[lane] = 0;
    for (int i = 0; i < n; i++) EACH {
        float apart = scale[lane] * codes[i][lane] + minimum[lane] - x[i][lane];
        apart = absolute ? fabsf(apart) : apart * apart;
        error[lane] += w[i][lane] * apart;
    }
}

/* `minimum` comes out negated. */
INLINE void scale_and_minimum(int n, const Lanes *x, const Lanes *w, int most, float first, float step, int steps, int absolute, float *scale, float *minimum,
                              Lanes *codes) {
    Lanes low, high, sum_w, sum_x, best, tried[32];
    EACH {
        low[lane] = high[lane] = x[0][lane];
        sum_w[lane] = w[0][lane];
        sum_x[lane] = w[0][lane] * x[0][lane];
    }
    for (int i = 1; i < n; i++) EACH {
        low[lane] = x[i][lane] < low[lane] ? x[i][lane] : low[lane];
        high[lane] = x[i][lane] > high[lane] ? x[i][lane] : high[lane];
        sum_w[lane] += w[i][lane];
        sum_x[lane] += w[i][lane] * x[i][lane];
    }
    Lanes factor, flat;
    EACH {
        low[lane] = low[lane] > 0 ? 0 : low[lane];
        flat[lane] = high[lane] <= low[lane];
        factor[lane] = (float)most / (high[lane] - low[lane]);
        scale[lane] = 1 / factor[lane];
        minimum[lane] = low[lane];
    }
    for (int i = 0; i < n; i++) EACH codes[i][lane] = clipped_nearest(factor[lane] * (x[i][lane] - low[lane]), 0, most);
    error_of(n, x, w, codes, scale, low, absolute, best);
    for (int trial = 0; trial <= steps; trial++) {
        float wanted = first + step * (float)trial + (float)most;
        Lanes sum_l, sum_l2, sum_xl, this_scale, this_minimum, determinant, error;
        EACH {
            factor[lane] = wanted / (high[lane] - minimum[lane]);
            sum_l[lane] = sum_l2[lane] = sum_xl[lane] = 0;
        }
        for (int i = 0; i < n; i++) EACH {
            float code = clipped_nearest(factor[lane] * (x[i][lane] - minimum[lane]), 0, most), weighted = w[i][lane] * code;
            tried[i][lane] = code;
            sum_l[lane] += weighted;
            sum_l2[lane] += weighted * code;
            sum_xl[lane] += weighted * x[i][lane];
        }
        EACH {
            determinant[lane] = sum_w[lane] * sum_l2[lane] - sum_l[lane] * sum_l[lane];
            float free_scale = (sum_w[lane] * sum_xl[lane] - sum_x[lane] * sum_l[lane]) / determinant[lane];
            float free_minimum = (sum_l2[lane] * sum_x[lane] - sum_l[lane] * sum_xl[lane]) / determinant[lane];
            float bound_scale = sum_xl[lane] / sum_l2[lane];
            this_scale[lane] = free_minimum > 0 ? bound_scale : free_scale;
            this_minimum[lane] = free_minimum > 0 ? 0 : free_minimum;
        }
        error_of(n, x, w, tried, this_scale, this_minimum, absolute, error);
        int32_t better[LANES], any = 0;
        EACH {
            better[lane] = (determinant[lane] > 0) & (error[lane] < best[lane]);
            any |= better[lane];
            best[lane] = better[lane] ? error[lane] : best[lane];
            scale[lane] = better[lane] ? this_scale[lane] : scale[lane];
            minimum[lane] = better[lane] ? this_minimum[lane] : minimum[lane];
        }
        if (any) for (int i = 0; i < n; i++) EACH codes[i][lane] = better[lane] ? tried[i][lane] : codes[i][lane];
    }
    for (int i = 0; i < n; i++) EACH codes[i][lane] = flat[lane] != 0 ? 0 : codes[i][lane];
    EACH {
        scale[lane] = flat[lane] != 0 ? 0 : scale[lane];
        minimum[lane] = -minimum[lane];
    }
}

INLINE void greatest_in_lanes(int n, const Lanes *x, float *most) {
    Lanes magnitude;
    EACH most[lane] = magnitude[lane] = 0;
    for (int i = 0; i < n; i++) EACH {
        float here = fabsf(x[i][lane]);
        most[lane] = here > magnitude[lane] ? x[i][lane] : most[lane];
        magnitude[lane] = here > magnitude[lane] ? here : magnitude[lane];
    }
}

/* Codes 0 to 2 * most_code - 1. */
INLINE void around_zero(int n, const Lanes *x, const Lanes *w, int most_code, float *scale, Lanes *codes) {
    Lanes most, factor, best, sum_lx, sum_l2, tried[32];
    greatest_in_lanes(n, x, most);
    for (int step = -10; step < 10; step++) {                      /* the first try is the plain one, then -9 to 9 without 0 */
        int number = step == -10 ? 0 : step < 0 ? step : step + 1;
        if (number == 10) break;
        EACH {
            factor[lane] = number ? -((float)most_code + 0.1f * (float)number) / most[lane] : (float)-most_code / most[lane];
            sum_lx[lane] = sum_l2[lane] = 0;
        }
        for (int i = 0; i < n; i++) EACH {
            float code = clipped_nearest(factor[lane] * x[i][lane], -most_code, most_code - 1);
            tried[i][lane] = code;
            sum_lx[lane] += w[i][lane] * x[i][lane] * code;
            sum_l2[lane] += w[i][lane] * code * code;
        }
        int32_t better[LANES], any = 0;
        EACH {
            float fit = sum_lx[lane] / sum_l2[lane];
            better[lane] = number ? (sum_l2[lane] > 0) & (sum_lx[lane] * sum_lx[lane] > best[lane] * sum_l2[lane]) : 1;
            any |= better[lane];
            scale[lane] = number ? (better[lane] ? fit : scale[lane]) : sum_l2[lane] != 0 ? fit : 0;
            best[lane] = better[lane] ? scale[lane] * sum_lx[lane] : best[lane];
        }
        if (any) for (int i = 0; i < n; i++) EACH codes[i][lane] = better[lane] ? tried[i][lane] : codes[i][lane];
    }
    for (int i = 0; i < n; i++) EACH codes[i][lane] = fabsf(most[lane]) < NEGLIGIBLE ? 0 : codes[i][lane] + (float)most_code;
    EACH scale[lane] = fabsf(most[lane]) < NEGLIGIBLE ? 0 : scale[lane];
}

INLINE void q3_search(const Lanes *x, float *scale, Lanes *codes) {
    Lanes most, weights[16], sum_lx, sum_l2;
    greatest_in_lanes(16, x, most);
    EACH sum_lx[lane] = sum_l2[lane] = 0;
    for (int i = 0; i < 16; i++) EACH {
        float code = clipped_nearest(-4.0f / most[lane] * x[i][lane], -4, 3), weight = x[i][lane] * x[i][lane];
        codes[i][lane] = code;
        weights[i][lane] = weight;
        sum_lx[lane] += weight * x[i][lane] * code;
        sum_l2[lane] += weight * code * code;
    }
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 16; i++) EACH {
            float code = codes[i][lane], weight = weights[i][lane], pull = weight * x[i][lane];
            float rest_lx = sum_lx[lane] - pull * code, rest_l2 = sum_l2[lane] - weight * code * code;
            float tried = clipped_nearest(x[i][lane] * rest_l2 / rest_lx, -4, 3);
            float new_lx = rest_lx + pull * tried, new_l2 = rest_l2 + weight * tried * tried;
            int better = (rest_lx > 0) & (tried != code) & (new_l2 > 0) & (new_lx * new_lx * sum_l2[lane] > sum_lx[lane] * sum_lx[lane] * new_l2);
            codes[i][lane] = better ? tried : code;
            sum_lx[lane] = better ? new_lx : sum_lx[lane];
            sum_l2[lane] = better ? new_l2 : sum_l2[lane];
        }
    }
    for (int i = 0; i < 16; i++) EACH codes[i][lane] = fabsf(most[lane]) < NEGLIGIBLE ? 0 : codes[i][lane] + 4;
    EACH scale[lane] = fabsf(most[lane]) < NEGLIGIBLE || !(sum_l2[lane] > 0) ? 0 : sum_lx[lane] / sum_l2[lane];
}

static const float IQ4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* What the table has nearest to a value, the upper one of two that are as near. */
INLINE float nearest_iq4(float value) {
    float found = IQ4[0];
    for (int i = 0; i < 15; i++) found = value >= (IQ4[i] + IQ4[i + 1]) / 2 ? IQ4[i + 1] : found;
    return found;
}

INLINE uint8_t code_iq4(float value) {
    uint8_t code = value != value ? 15 : 0;                        /* no number: as the reference's search of the table ends */
    for (int i = 0; i < 15; i++) code = (uint8_t)(code + (value >= (IQ4[i] + IQ4[i + 1]) / 2));
    return code;
}

INLINE void iq4_search(const Lanes *x, const Lanes *w, float *scale) {
    Lanes most, factor, best, sum_qx, sum_q2;
    greatest_in_lanes(32, x, most);
    for (int step = -8; step <= 7; step++) {
        EACH {
            factor[lane] = step == -8 ? 1 / (-most[lane] / IQ4[0]) : ((float)step + IQ4[0]) / most[lane];
            sum_qx[lane] = sum_q2[lane] = 0;
        }
        for (int i = 0; i < 32; i++) EACH {
            float point = nearest_iq4(factor[lane] * x[i][lane]), weighted = w[i][lane] * point;
            sum_qx[lane] += weighted * x[i][lane];
            sum_q2[lane] += weighted * point;
        }
        EACH {
            float fit = sum_qx[lane] / sum_q2[lane];
            int better = step == -8 || ((sum_q2[lane] > 0) & (sum_qx[lane] * sum_qx[lane] > best[lane] * sum_q2[lane]));
            scale[lane] = step == -8 ? (sum_q2[lane] > 0 ? fit : 0) : better ? fit : scale[lane];
            best[lane] = better ? scale[lane] * sum_qx[lane] : best[lane];
        }
    }
    EACH scale[lane] = fabsf(most[lane]) < NEGLIGIBLE ? 0 : scale[lane];
}

/* ---- the scales of a block */

INLINE float above_zero(int n, const float *x, const float *w, int most, uint8_t *codes) {
    float highest = 0, sum_lx = 0, sum_l2 = 0, least = 0;
    for (int i = 0; i < n; i++) highest = x[i] > highest ? x[i] : highest;
    if (highest < NEGLIGIBLE) {
        memset(codes, 0, (size_t)n);
        return 0;
    }
    float best = (float)most / highest, plain = 1 / best;
    for (int i = 0; i < n; i++) {
        float apart = x[i] - plain * (float)(uint8_t)nearest(best * x[i]);
        least += w[i] * apart * apart;
    }
    for (int step = -4; step <= 4; step++) {
        if (!step) continue;
        float factor = (0.1f * (float)step + (float)most) / highest, scale = 1 / factor, error = 0;
        for (int i = 0; i < n; i++) {
            int32_t code = nearest(factor * x[i]);
            float apart = x[i] - scale * (float)(code > most ? most : code);
            error += w[i] * apart * apart;
        }
        if (error < least) { least = error; best = factor; }
    }
    for (int i = 0; i < n; i++) {
        int32_t code = nearest(best * x[i]);
        code = code > most ? most : code;
        codes[i] = (uint8_t)code;
        sum_lx += w[i] * x[i] * (float)code;
        sum_l2 += w[i] * (float)code * (float)code;
    }
    for (int round = 0, changed = 1; round < 5 && changed; round++) {
        changed = 0;
        for (int i = 0; i < n; i++) {
            float code = codes[i], rest_lx = sum_lx - w[i] * x[i] * code, rest_l2 = sum_l2 - w[i] * code * code;
            if (!(rest_lx > 0 && rest_l2 > 0)) continue;
            int32_t tried = nearest(x[i] * rest_l2 / rest_lx);
            tried = tried > most ? most : tried;
            float new_lx = rest_lx + w[i] * x[i] * (float)tried, new_l2 = rest_l2 + w[i] * (float)tried * (float)tried;
            if (tried != codes[i] && new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2) {
                codes[i] = (uint8_t)tried;
                sum_lx = new_lx;
                sum_l2 = new_l2;
                changed = 1;
            }
        }
    }
    return sum_l2 > 0 ? sum_lx / sum_l2 : 0;
}

INLINE float inverse(float value) { return value != 0 ? 1 / value : 0; }

INLINE float total(int n, const float *values) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += values[i];
    return sum;
}

/* Codes for the scale as it is stored; a group whose scale became 0 keeps those of the search. */
INLINE void recode(int n, const float *x, float d, float offset, int least, int most, uint8_t *codes) {
    if (d == 0) return;
    for (int i = 0; i < n; i++) codes[i] = (uint8_t)(clipped(nearest((x[i] + offset) / d), least, most) - least);
}

INLINE void pack_pairs(const uint8_t *codes, uint8_t *out) {
    for (int half = 0; half < 2; half++) for (int i = 0; i < 32; i++) {
        const uint8_t *c = codes + 128 * half + i;
        out[32 * half + i] = (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
}

INLINE void pack_nibbles(int n, int group, const uint8_t *codes, uint8_t *out) {
    for (int start = 0; start < n; start += 2 * group)
        for (int i = 0; i < group; i++) out[start / 2 + i] = (uint8_t)((codes[start + i] & 15) | (codes[start + group + i] & 15) << 4);
}

/* ---- the searches of LANES groups, each in one body for every processor */

typedef struct {
    float scales[LANES], minima[LANES], sums[LANES];
    uint8_t codes[LANES * 32];
} Found;

INLINE void unload(int n, const Lanes *codes, uint8_t *out) {
    for (int i = 0; i < n; i++) EACH out[lane * n + i] = (uint8_t)codes[i][lane];
}

INLINE void sums_of(int n, const Lanes *w, float *sums) {
    EACH sums[lane] = 0;
    for (int i = 0; i < n; i++) EACH sums[lane] += w[i][lane];
}

INLINE void search_with_minima(int n, int most, float first, float step, int steps, int absolute, const float *groups, const float *weights, Found *found) {
    Lanes x[32], w[32], codes[32];
    load(n, groups, x);
    if (weights) {
        load(n, weights, w);
        first = -0.9f; step = 0.05f; steps = 36; absolute = 0;
    } else if (absolute) {
        for (int i = 0; i < n; i++) EACH w[i][lane] = fabsf(x[i][lane]);
    } else {
        Lanes mean;
        EACH mean[lane] = 0;
        for (int i = 0; i < n; i++) EACH mean[lane] += x[i][lane] * x[i][lane];
        EACH mean[lane] = sqrtf(mean[lane] / (float)n);
        for (int i = 0; i < n; i++) EACH w[i][lane] = mean[lane] + fabsf(x[i][lane]);
    }
    sums_of(n, (const Lanes *)w, found->sums);
    scale_and_minimum(n, (const Lanes *)x, (const Lanes *)w, most, first, step, steps, absolute, found->scales, found->minima, codes);
    unload(n, (const Lanes *)codes, found->codes);
}

INLINE void search_around_zero(int n, int most_code, const float *groups, const float *weights, Found *found) {
    Lanes x[32], w[32], codes[32];
    load(n, groups, x);
    if (weights) load(n, weights, w);
    else for (int i = 0; i < n; i++) EACH w[i][lane] = x[i][lane] * x[i][lane];
    sums_of(n, (const Lanes *)w, found->sums);
    around_zero(n, (const Lanes *)x, (const Lanes *)w, most_code, found->scales, codes);
    unload(n, (const Lanes *)codes, found->codes);
}

#define SEARCH(name) \
    CLONES static void name(int most, float first, int steps, const float *groups, const float *weights, Found *found)
SEARCH(search_16_with_minima) { search_with_minima(16, most, first, 0.1f, steps, 1, groups, weights, found); }
SEARCH(search_32_with_minima) { search_with_minima(32, most, first, 0.1f, steps, 0, groups, weights, found); }
SEARCH(search_16_around_zero) { (void)first; (void)steps; search_around_zero(16, most, groups, weights, found); }
SEARCH(search_32_around_zero) { (void)first; (void)steps; search_around_zero(32, most, groups, weights, found); }

SEARCH(search_q3) {
    (void)most; (void)first; (void)steps; (void)weights;
    Lanes x[16], codes[16];
    load(16, groups, x);
    q3_search((const Lanes *)x, found->scales, codes);
    unload(16, (const Lanes *)codes, found->codes);
}

SEARCH(search_iq4) {
    (void)most; (void)first; (void)steps;
    Lanes x[32], w[32];
    load(32, groups, x);
    if (weights) load(32, weights, w);
    else for (int i = 0; i < 32; i++) EACH w[i][lane] = x[i][lane] * x[i][lane];
    iq4_search((const Lanes *)x, (const Lanes *)w, found->scales);
}

/* ---- whole blocks */

static void finish_q2_k(const float *x, const Found *found, int weighted, uint8_t *out) {
    uint8_t codes[BLOCK], stored[2][16];
    float d[2];
    for (int which = 0; which < 2; which++) {
        const float *values = which ? found->minima : found->scales;
        if (weighted) {
            d[which] = store_half(out + 80 + 2 * which, above_zero(16, values, found->sums, 15, stored[which]));
            continue;
        }
        float highest = 0;
        for (int i = 0; i < 16; i++) highest = values[i] > highest ? values[i] : highest;
        for (int i = 0; i < 16; i++) stored[which][i] = highest > 0 ? (uint8_t)nearest(15.0f / highest * values[i]) : 0;
        d[which] = store_half(out + 80 + 2 * which, highest > 0 ? highest / 15.0f : 0);
    }
    memcpy(codes, found->codes, BLOCK);
    for (int group = 0; group < 16; group++) {
        out[group] = (uint8_t)(stored[0][group] | stored[1][group] << 4);
        recode(16, x + 16 * group, d[0] * (float)(out[group] & 15), d[1] * (float)(out[group] >> 4), 0, 3, codes + 16 * group);
    }
    pack_pairs(codes, out + 16);
}

/* Eight groups of 32, whose scales, minima, sums and codes begin at `from` of what was found. */
static void finish_with_minima(int most, const float *x, const Found *found, int from, int weighted, uint8_t *out) {
    uint8_t codes[BLOCK], stored[2][8];
    float d[2];
    for (int which = 0; which < 2; which++) {
        const float *values = (which ? found->minima : found->scales) + from;
        if (weighted) {
            d[which] = store_half(out + 2 * which, above_zero(8, values, found->sums + from, 63, stored[which]));
            if (most == 31) for (int i = 0; i < 8; i++) stored[which][i] = stored[which][i] > 63 ? 63 : stored[which][i];
            continue;
        }
        float highest = 0;
        for (int i = 0; i < 8; i++) highest = values[i] > highest ? values[i] : highest;
        float factor = highest > 0 ? 63.0f / highest : 0;
        for (int i = 0; i < 8; i++) {
            uint8_t code = (uint8_t)nearest(factor * values[i]);
            stored[which][i] = code > 63 ? 63 : code;
        }
        d[which] = store_half(out + 2 * which, highest / 63.0f);
    }
    uint8_t *scales = out + 4;
    for (int i = 0; i < 4; i++) {
        scales[i] = (uint8_t)(stored[0][i] | stored[0][i + 4] >> 4 << 6);
        scales[i + 4] = (uint8_t)(stored[1][i] | stored[1][i + 4] >> 4 << 6);
        scales[i + 8] = (uint8_t)((stored[0][i + 4] & 15) | (stored[1][i + 4] & 15) << 4);
    }
    memcpy(codes, found->codes + 32 * from, BLOCK);
    for (int group = 0; group < 8; group++) {
        int low = group & 3;
        int scale = group < 4 ? scales[low] & 63 : (scales[low + 8] & 15) | scales[low] >> 6 << 4;
        int minimum = group < 4 ? scales[low + 4] & 63 : scales[low + 8] >> 4 | scales[low + 4] >> 6 << 4;
        recode(32, x + 32 * group, d[0] * (float)scale, d[1] * (float)minimum, 0, most, codes + 32 * group);
    }
    if (most == 31) {
        uint8_t *high = out + 16;
        memset(high, 0, 32);
        for (int group = 0; group < 8; group++) for (int i = 0; i < 32; i++) high[i] |= (uint8_t)((codes[32 * group + i] >> 4) << group);
    }
    pack_nibbles(BLOCK, 32, codes, out + (most == 31 ? 48 : 16));
}

static void finish_q3_k(const float *x, const Found *found, int weighted, uint8_t *out) {
    uint8_t codes[BLOCK], stored[16];
    float d;
    if (weighted) {
        /* The sixteen scales are one more group, in the first lane. */
        float values[LANES * 16] = {0}, w[LANES * 16] = {0};
        Found whole;
        memcpy(values, found->scales, sizeof found->scales);
        memcpy(w, found->sums, sizeof found->sums);
        search_16_around_zero(32, 0, 0, values, w, &whole);
        memcpy(stored, whole.codes, 16);
        d = store_half(out + 108, whole.scales[0]);
    } else {
        float most = greatest(16, found->scales), factor = -32.0f / most;
        for (int i = 0; i < 16; i++) stored[i] = most != 0 ? (uint8_t)(clipped((int8_t)nearest(factor * found->scales[i]), -32, 31) + 32) : 0;
        d = store_half(out + 108, most != 0 ? 1 / factor : 0);
    }
    memset(out, 0, 108);
    for (int i = 0; i < 16; i++) {
        out[96 + i % 8] |= (uint8_t)((stored[i] & 15) << (i < 8 ? 0 : 4));
        out[104 + i % 4] |= (uint8_t)(stored[i] >> 4 << 2 * (i / 4));
    }
    memcpy(codes, found->codes, BLOCK);
    for (int group = 0; group < 16; group++) recode(16, x + 16 * group, d * ((float)stored[group] - 32.0f), 0, -4, 3, codes + 16 * group);
    for (int i = 0; i < BLOCK; i++) out[i % 32] |= (uint8_t)((codes[i] > 3) << (i / 32));
    pack_pairs(codes, out + 32);
}

static void finish_q6_k(const float *x, const Found *found, uint8_t *out) {
    uint8_t codes[BLOCK];
    float most = greatest(16, found->scales), factor = -128.0f / most;
    if (fabsf(most) < NEGLIGIBLE) {
        memset(out, 0, 210);
        return;
    }
    float d = store_half(out + 208, 1 / factor);
    memcpy(codes, found->codes, BLOCK);
    for (int group = 0; group < 16; group++) {
        int32_t scale = nearest(factor * found->scales[group]);
        int8_t narrow = (int8_t)(scale > 127 ? 127 : scale);
        out[192 + group] = (uint8_t)narrow;
        recode(16, x + 16 * group, d * (float)narrow, 0, -32, 31, codes + 16 * group);
    }
    pack_nibbles(BLOCK, 64, codes, out);
    for (int half = 0; half < 2; half++) for (int i = 0; i < 32; i++) {
        const uint8_t *c = codes + 128 * half + i;
        out[128 + 32 * half + i] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
    }
}

static void finish_iq4_nl(const float *x, float scale, uint8_t *out) {
    uint8_t codes[32];
    float factor = inverse(scale);
    store_half(out, scale);
    for (int i = 0; i < 32; i++) codes[i] = code_iq4(factor * x[i]);
    pack_nibbles(32, 16, codes, out + 2);
}

static void finish_iq4_xs(const float *x, const float *scales, uint8_t *out) {
    uint8_t codes[BLOCK];
    float d = -greatest(8, scales) / 32.0f, whole = inverse(d);
    uint16_t high = 0;
    store_half(out, d);
    memset(out + 4, 0, 4);
    for (int group = 0; group < 8; group++) {
        int32_t stored = clipped(nearest(whole * scales[group]), -32, 31);
        float fine = d * (float)stored, factor = inverse(fine);
        for (int i = 0; i < 32; i++) codes[32 * group + i] = code_iq4(factor * x[32 * group + i]);
        out[4 + group / 2] |= (uint8_t)(((stored + 32) & 15) << 4 * (group & 1));
        high = (uint16_t)(high | (stored + 32) >> 4 << 2 * group);
    }
    memcpy(out + 2, &high, 2);
    pack_nibbles(BLOCK, 16, codes, out + 8);
}

INLINE void finish_plain(const uint8_t *codes, float scale, const float *least, int high, uint8_t *out) {
    store_half(out, scale);
    if (least) store_half(out + 2, *least);
    out += least ? 4 : 2;
    if (high) {
        uint32_t bits = 0;
        for (int i = 0; i < 32; i++) bits |= (uint32_t)(codes[i] >> 4) << i;
        memcpy(out, &bits, 4);
        out += 4;
    }
    pack_nibbles(32, 16, codes, out);
}

/* The numbers of ggml_type */
enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23 };

/* Codes around zero: the element of greatest magnitude becomes code 0. */
INLINE void encode_symmetric(int most, const float *x, uint8_t *out) {
    uint8_t codes[32];
    float d = greatest(32, x) / (float)-most, factor = inverse(d);
    for (int i = 0; i < 32; i++) {
        int8_t code = (int8_t)(int32_t)(x[i] * factor + ((float)most + 0.5f));
        codes[i] = (uint8_t)(code > 2 * most - 1 ? 2 * most - 1 : code);
    }
    finish_plain(codes, d, 0, most == 16, out);
}

/* Codes from the least element to the greatest. */
INLINE void encode_ranged(int most, const float *x, uint8_t *out) {
    uint8_t codes[32];
    float low = x[0], high = x[0];
    for (int i = 1; i < 32; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float d = (high - low + 0.0f) / (float)most, factor = inverse(d);
    for (int i = 0; i < 32; i++) {
        int8_t code = (int8_t)(int32_t)((x[i] - low) * factor + 0.5f);
        codes[i] = (uint8_t)(code > most ? most : code);
    }
    finish_plain(codes, d, &low, most == 31, out);
}

INLINE void encode_q8_0(const float *x, uint8_t *out) {
    float most = 0;
    for (int i = 0; i < 32; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float d = most / 127.0f, factor = inverse(d);
    store_half(out, d);
    for (int i = 0; i < 32; i++) {
        float value = x[i] * factor, whole = truncf(value);
        whole += fabsf(value - whole) >= 0.5f ? copysignf(1, value) : 0;
        out[2 + i] = (uint8_t)(int8_t)whole;
    }
}

/* Blocks of 32 elements without a search. */
CLONES static void encode_plain(int kind, const float *x, int64_t blocks, uint8_t *out, int64_t bytes) {
    for (; blocks > 0; blocks--, x += 32, out += bytes) {
        switch (kind) {
        case Q4_0: encode_symmetric(8, x, out); break;
        case Q5_0: encode_symmetric(16, x, out); break;
        case Q4_1: encode_ranged(15, x, out); break;
        case Q5_1: encode_ranged(31, x, out); break;
        default: encode_q8_0(x, out);
        }
    }
}

/* The blocks of LANES groups. */
static void encode_lanes(int kind, const float *x, const float *weights, uint8_t *out) {
    Found found;
    int weighted = weights != 0;
    switch (kind) {
    case Q2_K:
        search_16_with_minima(3, -0.5f, 15, x, weights, &found);
        finish_q2_k(x, &found, weighted, out);
        return;
    case Q3_K:
        (weighted ? search_16_around_zero : search_q3)(4, 0, 0, x, weights, &found);
        finish_q3_k(x, &found, weighted, out);
        return;
    case Q4_K: case Q5_K:
        search_32_with_minima(kind == Q4_K ? 15 : 31, kind == Q4_K ? -1.0f : -0.5f, kind == Q4_K ? 20 : 15, x, weights, &found);
        for (int block = 0; block < 2; block++)
            finish_with_minima(kind == Q4_K ? 15 : 31, x + BLOCK * block, &found, 8 * block, weighted, out + (kind == Q4_K ? 144 : 176) * block);
        return;
    case Q6_K:
        search_16_around_zero(32, 0, 0, x, weights, &found);
        finish_q6_k(x, &found, out);
        return;
    case Q4_0: case Q5_0:
        search_32_around_zero(kind == Q4_0 ? 8 : 16, 0, 0, x, weights, &found);
        for (int lane = 0; lane < LANES; lane++) finish_plain(found.codes + 32 * lane, found.scales[lane], 0, kind == Q5_0, out + (kind == Q4_0 ? 18 : 22) * lane);
        return;
    case Q4_1: case Q5_1:
        search_32_with_minima(kind == Q4_1 ? 15 : 31, 0, 0, x, weights, &found);
        for (int lane = 0; lane < LANES; lane++) {
            float least = -found.minima[lane];
            finish_plain(found.codes + 32 * lane, found.scales[lane], &least, kind == Q5_1, out + (kind == Q4_1 ? 20 : 24) * lane);
        }
        return;
    case IQ4_NL:
        search_iq4(0, 0, 0, x, weights, &found);
        for (int lane = 0; lane < LANES; lane++) finish_iq4_nl(x + 32 * lane, found.scales[lane], out + 18 * lane);
        return;
    default:
        search_iq4(0, 0, 0, x, weights, &found);
        for (int block = 0; block < 2; block++) finish_iq4_xs(x + BLOCK * block, found.scales + 8 * block, out + 136 * block);
    }
}

/* Writes the blocks of a kind (a number of ggml_type, `bytes` each) of `elements` float32, with a weight each or none. 0: there is no kernel for that. */
EXPORT int isomorph_encode(int kind, const float *x, const float *weights, int64_t elements, uint8_t *out, int64_t bytes);
EXPORT int isomorph_encode(int kind, const float *x, const float *weights, int64_t elements, uint8_t *out, int64_t bytes) {
    int narrow = kind == Q2_K || kind == Q3_K || kind == Q6_K, searched = (kind >= Q2_K && kind <= Q6_K) || kind == IQ4_NL || kind == IQ4_XS;
    int plain = kind == Q4_0 || kind == Q4_1 || kind == Q5_0 || kind == Q5_1;
    if (kind == Q8_0 || (plain && !weights)) {
        encode_plain(kind, x, elements / 32, out, bytes);
        return 1;
    }
    if (!searched && !plain) return 0;
    const int64_t whole = LANES * (narrow ? 16 : 32), step = bytes * whole / (kind >= Q2_K && kind != IQ4_NL ? BLOCK : 32);
    for (; elements >= whole; elements -= whole, x += whole, out += step) {
        encode_lanes(kind, x, weights, out);
        weights = weights ? weights + whole : 0;
    }
    if (elements) {                                                /* the last lanes stay zero */
        float padded[LANES * 32] = {0}, given[LANES * 32] = {0};
        uint8_t packed[24 * LANES];
        memcpy(padded, x, (size_t)elements * 4);
        if (weights) memcpy(given, weights, (size_t)elements * 4);
        encode_lanes(kind, padded, weights ? given : 0, packed);
        memcpy(out, packed, (size_t)(step * elements / whole));
    }
    return 1;
}
