/*
 * damage - P3: while mail waits, a bit of the spool flips at rest, or a block of 4 KiB is lost. What lies there may be lost if the
 * daemon says so; everything else must arrive, whole.
 *
 * Clients hand in mail while no next hop can be reached. Then a place is drawn, in a message that waits or anywhere in a segment;
 * half of the time all processes die beside it, so that recovery meets it, else it lies there until somebody reads it.
 */
#ifndef SIM_DAMAGE_H
#define SIM_DAMAGE_H

#include "sim/run.h"

extern const struct run_script damage_script; /* for `postrider-sim --damage` */

#endif
