import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** Counts its requests. */
public class Serve {
    private static int count = 0;

    public static void main(String[] words) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(words[0])), 0);
        server.createContext("/", exchange -> {
            byte[] body = ("asked " + ++count + " times\n").getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
