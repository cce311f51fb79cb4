import { subscribe } from '/live/client.js'

const find = selector => document.querySelector(selector)

let stream
let timer

/** POSTs, and throws what the server has against it. */
async function post(path, body) {
  const response = await fetch(path, {
    method: 'POST',
    headers: body ? { 'content-type': 'application/json' } : {},
    body: JSON.stringify(body)
  })
  const answer = response.status === 204 ? {} : await response.json()
  if (!response.ok) throw new Error(answer.detail)
  return answer
}

/** Sets the cookie anew, and again before it runs out: a stream that ends with its token comes back with the next one. */
async function renew() {
  const { user, seconds } = await post('/token')
  clearTimeout(timer)
  timer = setTimeout(() => void renew().catch(() => {}), seconds * 800)
  return user
}

function start(user) {
  find('#user').textContent = user
  stream?.close()
  stream = subscribe(`notifications/${user}`, {
    url: '/live',
    rewind: 20,
    onEvent({ data }) {
      const item = document.createElement('li')
      item.textContent = data.title
      find('#list').append(item)
    },
    // a timer stands still while a laptop sleeps: then the server asks for another token, and the cookie is it
    onToken: async () => {
      await renew()
      return ''
    },
    onState(state, why) {
      find('#state').textContent = find('#state').dataset.state = state
      find('#problem').textContent = why?.reason ?? ''
    }
  })
}

find('#login').onsubmit = async event => {
  event.preventDefault()
  const { user, password } = event.target.elements
  try {
    await post('/login', { user: user.value, password: password.value })
    start(await renew())
  } catch (error) {
    find('#problem').textContent = error.message
  }
}

find('#logout').onclick = async () => {
  clearTimeout(timer)
  stream?.close()
  await post('/logout')
  location.reload()
}

// who has a session already needs no password
renew().then(start, () => {})
