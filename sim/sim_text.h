/* Small text helpers without state: numbers, alphabets, base64url, UUID form. Any thread. */
#pragma once

#include "sim_types.h"

/* Decimal digits only, no sign. False when empty, not a number or above |max|. */
bool sim_text_number(struct sim_slice s, uint64_t max, uint64_t *ret_value);

bool sim_text_is_hex(struct sim_slice s);
bool sim_text_is_base64url(struct sim_slice s);
/* Canonical lower-case 8-4-4-4-12. */
bool sim_text_is_uuid(struct sim_slice s);
/* Equal without regard to the case of ASCII letters. */
bool sim_text_is_nocase(struct sim_slice s, const char *text);
/* True when |list|, words apart by commas or blanks, holds |word| (case ignored). */
bool sim_text_has_word(struct sim_slice list, const char *word);

/* Decodes base64url without padding (padding is refused), or standard base64 with it when
 * |standard|. Returns the bytes written, or -1: bad alphabet, bad length, or more than |size|. */
int sim_text_base64(struct sim_slice s, bool standard, uint8_t *out, size_t size);
/* Encodes base64url without padding; |out| holds (n + 2) / 3 * 4 + 1. Returns the characters. */
size_t sim_text_base64url(const uint8_t *p, size_t n, char *out);

/* Version-4 UUID form of two random words, lower case, with its end. */
void sim_text_uuid(uint64_t hi, uint64_t lo, char out[37]);

/* Copies up to |size| - 1 bytes and ends the text. False when it did not fit (then cut). */
bool sim_text_copy(char *out, size_t size, struct sim_slice s);
