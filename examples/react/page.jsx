import { createRoot } from 'react-dom/client'
import { onToken, post, signedIn } from '/login/session.js'
import { Orders } from './Orders.jsx'

await signedIn()

/** Publishes an order: what the list shows of it comes over the stream. */
async function order(event) {
  event.preventDefault()
  const { what } = event.target.elements
  await post('/live/events/orders', { item: what.value })
  what.value = ''
}

createRoot(document.querySelector('#page')).render(
  <>
    <section className="card">
      <Orders topics="orders" url="/live" onToken={onToken} />
    </section>
    <form onSubmit={order}>
      <input name="what" aria-label="Item" placeholder="What is it to be?" autoComplete="off" required />
      <button className="main">Order</button>
    </form>
  </>
)
