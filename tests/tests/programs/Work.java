// A JVM at work: threads under locks, garbage, code that is compiled while it runs. After the folder of its files comes for
// how many milliseconds it is to work before it checks itself, 300 unless told.
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

public class Work {
    static volatile boolean stop;

    static long fnv1a(byte[] bytes) {
        long value = 0xcbf29ce484222325L;
        for (byte b : bytes) {
            value = (value ^ (b & 0xff)) * 0x100000001b3L;
        }
        return value;
    }

    static void say(Path dir, String name, String text) throws Exception {
        Path draft = dir.resolve("." + name);
        Files.writeString(draft, text);
        Files.move(draft, dir.resolve(name), StandardCopyOption.ATOMIC_MOVE);
    }

    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        long span = args.length > 1 ? Long.parseLong(args[1]) : 300;
        byte[] bytes = new byte[16];
        new SecureRandom().nextBytes(bytes);
        String nonce = HexFormat.of().formatHex(bytes);
        ConcurrentHashMap<Long, String> map = new ConcurrentHashMap<>();
        AtomicLong next = new AtomicLong();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            Thread thread = new Thread(() -> {
                while (!stop) {
                    long key = next.getAndIncrement();
                    map.put(key % 20000, Long.toString(key));
                    byte[] garbage = new byte[(int) (key % 5000)];
                    if (fnv1a(garbage) == 42) {
                        throw new IllegalStateException("impossible hash");
                    }
                    if (key % 100 == 0) {
                        Thread.onSpinWait();
                        try {
                            Thread.sleep(1);
                        } catch (InterruptedException error) {
                            return;
                        }
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        say(dir, "ready", ProcessHandle.current().pid() + " " + String.format("%016x", fnv1a(nonce.getBytes())) + "\n");
        while (!Files.exists(dir.resolve("go"))) {
            Thread.sleep(Math.min(span, 10));
        }
        long before = next.get();
        Thread.sleep(span);
        for (int more = 0; next.get() == before && more < 1000; more++) {
            Thread.sleep(1);
        }
        stop = true;
        for (Thread thread : threads) {
            thread.join();
        }
        String wrong = next.get() > before ? "" : "threads stand still";
        for (var entry : map.entrySet()) {
            if (Long.parseLong(entry.getValue()) % 20000 != entry.getKey()) {
                wrong = "value of " + entry.getKey();
            }
        }
        System.gc();
        say(dir, "result", (wrong.isEmpty() ? "ok" : wrong) + "\n" + nonce + "\n");
        System.exit(wrong.isEmpty() ? 0 : 1);
    }
}
