/* The constants of Philox4x32-10, which kernels in other languages read too. */
#ifndef WINIT_PHILOX_H
#define WINIT_PHILOX_H

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_M0 0xD2511F53u /* multipliers */
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u /* increments of the key */
#define PHILOX_W1 0xBB67AE85u

#endif
