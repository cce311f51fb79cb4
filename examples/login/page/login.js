import { subscribe } from '/live/client.js'
import { onToken, post, renew, signOut } from './session.js'

const find = selector => document.querySelector(selector)

let stream

/** The page that led here. Only one of this origin: the address of this page may come from anybody. */
function pageBefore() {
  const back = new URLSearchParams(location.search).get('back')
  return back !== null && URL.parse(back)?.origin === location.origin ? back : undefined
}

function start(user) {
  const back = pageBefore()
  if (back !== undefined) return location.replace(back)
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
    onToken,
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
  stream?.close()
  await signOut()
  location.reload()
}

// who has a session already needs no password
renew().then(start, () => {})
