// A device's side of the ingest/1 protocol (ingest/PROTOCOL.md) for Node, without packages.
//
//     const { Device } = require('./ingest_device.js')
//     const device = new Device({ host: 'logs.example.com', port: 7650, name: 'sensor-1', token })
//     device.on('stopped', (code) => console.error(code))
//     if (!device.push('temp=20.5')) await once(device, 'room')   // the queue is full
//
// It keeps frames in memory until the listener has them on disk, and sends each once and in order,
// however often the connection breaks. What was not acknowledged when the program ends is lost.
//
// As a program:  INGEST_TOKEN=... node ingest_device.js HOST PORT NAME [--plain] [--tls CA] < lines

'use strict'

const { createHash, createHmac, pbkdf2Sync, randomBytes, randomInt, timingSafeEqual } =
  require('node:crypto')
const { EventEmitter } = require('node:events')
const net = require('node:net')
const tls = require('node:tls')

const CHUNK = 65536 // bytes that may wait in the socket before more is handed to it
const LONGEST_LINE = 8192 // of the listener
const HANDSHAKE_PATIENCE = 40000 // ms; an OK may be late when thousands connect at once
const KEEP_ALIVE = 600000 // ms; a listener cuts who says nothing for an hour
const LONGEST_PAUSE = 300000 // ms between two attempts
const STRAGGLER = 60000 // ms in which the login of a connection that broke may still arrive
const MAX_ITERATIONS = 1000000 // so that nobody on the network can keep the device busy

// What to do about the listener's errors, in the handshake and after it. Any other: `later`.
const ERRORS = {
  'auth-required': ['stop', 'stop'],
  'auth-failed': ['stop', 'stop'],
  'mechanism-unsupported': ['stop', 'stop'],
  'plaintext-refused': ['stop', 'stop'],
  replaced: ['stop', 'stop'],
  revoked: ['stop', 'stop'],
  'bad-frame': ['stop', 'setAside'],
  'frame-too-long': ['stop', 'setAside'],
  'idle-timeout': ['later', 'atOnce']
}

const LATER = ['later', 'later']

const nameOf = (host) => net.isIP(host) ? '' : host // RFC 6066: an address is not sent as a name
const numberIn = (text) => /^\d+$/.test(text) ? +text : NaN
const hmac = (key, message) => createHmac('sha256', key).update(message).digest()

// Events: `running`, `acknowledged` (number), `room`, `refused` (a frame that the listener refuses
// for ever), `outOfStep`, `broken` (why; it tries again), `stopped` (code; somebody must look).
class Device extends EventEmitter {
  // `mechanism`: PLAIN shows the token to whoever reads the network, unless `tls` is given.
  // `tls`: options of tls.connect, such as { ca }. `queue`: frames to keep at most.
  constructor ({ host, port, name, token, mechanism = 'SCRAM-SHA-256', tls, queue = 10000,
    pause = 1000 }) {
    super()
    if (!['SCRAM-SHA-256', 'PLAIN'].includes(mechanism)) throw new RangeError(mechanism)
    for (const [option, value] of Object.entries({ port: +port, queue, pause })) {
      if (!(value >= 1)) throw new RangeError(`${option} must be a number, and 1 at least`)
    }
    Object.assign(this, { name, mechanism, tls, limit: queue, pause, firstPause: pause })
    this.address = { host, port }
    this.token = token.normalize('NFKC') // of RFC 4013, what matters outside of its odd cases
    this.frames = [] // not acknowledged yet
    this.first = 0 // the listener's number of the oldest of them; 0: not known yet
    this.inDoubt = 0 // how many of them the listener may have
    this.sent = 0 // how many of them this connection has got
    this.broken = NaN // when the last connection ended, if the listener did not say why
    this.timer = setTimeout(() => this.dial(), 0)
  }

  // Take a frame, a string or a Buffer; return false where the queue has no room for it.
  push (frame) {
    frame = Buffer.from(frame)
    if (!frame.length || frame.includes('\n') || frame.at(-1) === 13) {
      throw new RangeError('a frame is not empty, has no LF within and no CR at its end')
    }
    if (this.frames.length >= this.limit) return false
    this.frames.push(frame)
    if (this.running) this.speak()
    return true
  }

  // Give up the connection, and whatever is not acknowledged.
  close () {
    clearTimeout(this.timer)
    clearInterval(this.keepAlive)
    this.running = false
    const socket = this.socket
    this.socket = null
    if (!socket) return
    socket.removeAllListeners().on('error', () => {})
    // Not in good order: half of a line would count as a frame. TLS has no such trap.
    if (this.tls || socket.connecting) socket.destroy()
    else socket.resetAndDestroy()
  }

  dial () {
    const socket = this.socket = this.tls
      ? tls.connect({ servername: nameOf(this.address.host), ...this.address, ...this.tls })
      : net.connect(this.address)
    this.line = Buffer.alloc(0)
    this.sent = 0
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 60000) // a listener that has vanished is found out by the system
    socket.on(this.tls ? 'secureConnect' : 'connect', () => this.logIn())
    socket.on('data', (data) => this.hear(data))
    socket.on('drain', () => this.speak())
    socket.on('error', (error) => this.later(error.message))
    socket.on('close', () => this.later('closed'))
    this.timer = setTimeout(() => this.later('no answer'), HANDSHAKE_PATIENCE)
  }

  say (message, prefix = '') {
    this.socket.write(prefix + Buffer.from(message).toString('base64') + '\n')
  }

  logIn () {
    if (this.mechanism === 'PLAIN') { // RFC 4616
      this.say(`\0${this.name}\0${this.token}`, 'AUTH PLAIN ')
      this.replies = { OK: this.takeOk }
      return
    }
    this.nonce = randomBytes(15).toString('base64')
    this.bare = `n=${this.name},r=${this.nonce}`
    this.say('n,,' + this.bare, 'AUTH SCRAM-SHA-256 ')
    this.replies = { '+': this.takeChallenge }
  }

  hear (data) {
    this.line = Buffer.concat([this.line, data])
    for (let end; this.socket && (end = this.line.indexOf(10)) >= 0;) {
      const [, word, rest] = /^(\S*) ?(.*)/.exec(this.line.toString('utf8', 0, end))
      this.line = this.line.subarray(end + 1)
      if (word === 'ERR') this.takeError(rest.split(' ')[0])
      else if (this.replies[word]) this.replies[word].call(this, rest)
      else this.later('bad reply')
    }
    if (this.socket && this.line.length > LONGEST_LINE) this.later('bad reply')
  }

  // Answer server-first-message of RFC 5802, and note how the listener has to sign.
  takeChallenge (rest) {
    const challenge = Buffer.from(rest, 'base64').toString()
    const [, nonce, salt, iterations] = /^r=([^,]+),s=([^,]+),i=(\d+)/.exec(challenge) ?? []
    if (!nonce?.startsWith(this.nonce) || nonce === this.nonce ||
        !(iterations >= 4096 && iterations <= MAX_ITERATIONS)) return this.later('bad challenge')
    const salted = pbkdf2Sync(this.token, Buffer.from(salt, 'base64'), +iterations, 32, 'sha256')
    const final = `c=biws,r=${nonce}`
    const signed = `${this.bare},${challenge},${final}`
    const key = hmac(salted, 'Client Key')
    const signature = hmac(createHash('sha256').update(key).digest(), signed)
    const proof = key.map((byte, i) => byte ^ signature[i]).toString('base64')
    this.expected = Buffer.from('v=' + hmac(hmac(salted, 'Server Key'), signed).toString('base64'))
    this.say(`${final},p=${proof}`)
    this.replies = { OK: this.takeOk }
  }

  takeOk (rest) {
    const pairs = Object.fromEntries(rest.split(' ').map((pair) => pair.split(/=(.*)/s)))
    const data = Buffer.from(pairs.data ?? '', 'base64')
    if (this.mechanism !== 'PLAIN' &&
        !(data.length === this.expected.length && timingSafeEqual(data, this.expected))) {
      return this.later('impostor') // it does not know the token: nothing is sent
    }
    const next = numberIn(pairs.next)
    if (!(next >= 1)) return this.later('bad reply')
    clearTimeout(this.timer)
    this.pause = this.firstPause
    this.resume(next)
    this.replies = { ACK: this.takeAck }
    this.running = true
    this.keepAlive = setInterval(() => this.socket.write('\n'), KEEP_ALIVE)
    this.emit('running')
    this.speak()
  }

  // Drop what the listener has already: `next` says how much of what is in doubt that is.
  resume (next) {
    const stored = next - this.first
    if (this.first && stored >= 0 && stored <= this.inDoubt) return this.drop(stored)
    // The numbers say nothing about the queue: it is the first time, or another program has used
    // this name, or the listener has another log. The queue is sent as it is, so that nothing can
    // be lost; what was in doubt may then be there twice.
    if (this.first) this.emit('outOfStep')
    this.first = next
    this.inDoubt = 0
  }

  takeAck (rest) {
    const stored = numberIn(rest) - this.first + 1
    if (!(stored <= this.sent)) return this.later('bad reply')
    if (stored > 0) this.drop(stored)
    this.speak()
  }

  drop (stored) {
    this.frames.splice(0, stored)
    this.first += stored
    this.sent -= Math.min(this.sent, stored)
    this.inDoubt -= stored
    this.emit('acknowledged', this.first - 1)
    this.emit('room')
  }

  speak () {
    while (this.running && this.sent < this.frames.length &&
           this.socket.writableLength < CHUNK) {
      const frame = this.frames[this.sent++]
      this.inDoubt = Math.max(this.inDoubt, this.sent)
      this.socket.write(Buffer.concat([frame, Buffer.from('\n')]))
    }
  }

  takeError (code) {
    // The newer connection may be an older one of ours, whose login came late.
    const byItself = code === 'replaced' && performance.now() - this.broken < STRAGGLER
    const [inHandshake, inSession] = byItself ? LATER : ERRORS[code] ?? LATER
    this[this.running ? inSession : inHandshake](code)
    this.broken = NaN
  }

  stop (code) {
    this.close()
    this.emit('stopped', code)
  }

  // The frame behind the last acknowledged one is refused for ever.
  setAside (code) {
    if (!this.sent) return this.later(code)
    this.inDoubt -= 1
    this.emit('refused', this.frames.shift())
    this.atOnce(code)
    this.emit('room')
  }

  atOnce (code) {
    this.close()
    this.emit('broken', code)
    this.timer = setTimeout(() => this.dial(), 0)
  }

  // With a growing, random pause, so that a fleet does not return all at once.
  later (reason) {
    this.close()
    this.broken = performance.now()
    this.emit('broken', reason)
    this.timer = setTimeout(() => this.dial(), this.nextPause())
  }

  nextPause () {
    const longest = this.pause
    this.pause = Math.min(2 * longest, LONGEST_PAUSE)
    return randomInt(longest >> 1, longest + 1)
  }
}

// Push the lines of standard input, and end when all are acknowledged.
async function main ([host, port, name, ...options]) {
  const ca = options[options.indexOf('--tls') + 1]
  const device = new Device({
    host,
    port,
    name,
    token: process.env.INGEST_TOKEN,
    mechanism: options.includes('--plain') ? 'PLAIN' : 'SCRAM-SHA-256',
    tls: options.includes('--tls') ? { ca: require('node:fs').readFileSync(ca) } : undefined,
    queue: +(process.env.INGEST_QUEUE_FRAMES ?? 10000),
    pause: +(process.env.INGEST_PAUSE_MS ?? 1000)
  })
  const changed = () => new Promise((resolve) => device.once('room', resolve))
  device.on('refused', (frame) => console.error(`refused: ${frame.subarray(0, 80)}`))
  device.on('outOfStep', () => console.error('another program uses this name'))
  let told = false // of this outage
  device.on('running', () => { told = false })
  device.on('broken', (why) => {
    if (!told) console.error(`no connection, but trying: ${why}`)
    told = true
  })
  device.on('stopped', (code) => {
    console.error(`stopped: ${code}`)
    process.exit(1)
  })
  for await (let line of linesOf(process.stdin)) {
    if (line.at(-1) === 13) line = line.subarray(0, -1) // it may end in CRLF
    try {
      while (line.length && !device.push(line)) await changed()
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      console.error('a line is no frame, and left out')
    }
  }
  while (device.frames.length) await changed()
  device.close()
}

// As bytes: what is no UTF-8 must arrive as it is.
async function * linesOf (stream) {
  let rest = Buffer.alloc(0)
  for await (const chunk of stream) {
    rest = Buffer.concat([rest, chunk])
    for (let end; (end = rest.indexOf(10)) >= 0; rest = rest.subarray(end + 1)) {
      yield rest.subarray(0, end)
    }
  }
  yield rest
}

module.exports = { Device }

if (require.main === module) {
  if (process.argv.length < 5 || process.env.INGEST_TOKEN === undefined) {
    console.error('INGEST_TOKEN=... node ingest_device.js HOST PORT NAME [--plain] [--tls CA-FILE]' +
      ' < lines')
    process.exit(2)
  }
  main(process.argv.slice(2))
}
