import { useEffect, useState } from 'react'
import { subscribe } from 'ringside-hub/client'

/**
 * The last events of topics, the oldest first, and what the connection is.
 *
 *     const { events, state } = useTopics('orders', { rewind: 20 })
 *
 * `options` are those of `subscribe`, and `keep`: how many events are kept. They count when it subscribes: at first, and
 * when the topics change.
 */
export function useTopics(topics, options = {}) {
  const [view, setView] = useState(EMPTY)
  // an array that is written in a component is a new one at each render: what it holds tells whether it has changed
  const key = JSON.stringify(topics)
  useEffect(() => {
    const { keep = 100, ...rest } = options
    setView(EMPTY)
    const subscription = subscribe(topics, {
      ...rest,
      onEvent: event => setView(view => ({ ...view, events: [...view.events, event].slice(-keep) })),
      onGap: gap => setView(view => ({ ...view, gaps: [...view.gaps, gap].slice(-keep) })),
      onState: state => setView(view => ({ ...view, state }))
    })
    return () => subscription.close()
  }, [key])
  return view
}

const EMPTY = { events: [], gaps: [], state: 'connecting' }
