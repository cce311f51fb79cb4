import { getHeapStatistics, setFlagsFromString } from 'node:v8'

/** How often it is looked at how full the heap is, in milliseconds. */
const LOOK_MS = 250

/** How much more than what is kept V8 may let the heap grow to, in percent, before it collects garbage. */
const GROWTH = 10

/** V8's own choice: from a half to three times as much. */
const OWN_GROWTH = 0

/**
 * Holds garbage down while more than half of the heap is in use. V8 lets garbage pile up to half of what the heap has left,
 * so that with MEMORY full a process would take much more than what is kept: this trades processor time for memory where
 * memory is short, and nothing where it is not. The flag is read after each collection; a V8 that doesn't have it goes on
 * as it would.
 */
export function collectSoonerWhenFull(): void {
  let growth = OWN_GROWTH
  const look = () => {
    const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics()
    const wanted = used > limit / 2 ? GROWTH : used < limit / 3 ? OWN_GROWTH : growth
    if (wanted === growth) return
    growth = wanted
    setFlagsFromString(`--heap-growing-percent=${growth}`)
  }
  setInterval(look, LOOK_MS).unref()
}
