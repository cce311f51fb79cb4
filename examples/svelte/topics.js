import { readable } from 'svelte/store'
import { subscribe } from 'ringside-hub/client'

/**
 * A store of the last events of topics, the oldest first, and what the connection is. It subscribes while somebody
 * listens to it.
 *
 *     const orders = topics('orders', { rewind: 20 })   // then $orders.events, $orders.state
 *
 * `options` are those of `subscribe`, and `keep`: how many events are kept.
 */
export function topics(names, { keep = 100, ...options } = {}) {
  return readable(EMPTY, (set, update) => {
    set(EMPTY)
    const subscription = subscribe(names, {
      ...options,
      onEvent: event => update(view => ({ ...view, events: [...view.events, event].slice(-keep) })),
      onGap: gap => update(view => ({ ...view, gaps: [...view.gaps, gap].slice(-keep) })),
      onState: state => update(view => ({ ...view, state }))
    })
    return () => subscription.close()
  })
}

const EMPTY = { events: [], gaps: [], state: 'connecting' }
