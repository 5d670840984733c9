import java.net.InetAddress;
import java.net.NetworkInterface;
import java.util.Collections;

/** Prints every interface and address that the JVM lists. */
public class Interfaces {
    public static void main(String[] args) throws Exception {
        for (NetworkInterface i : Collections.list(NetworkInterface.getNetworkInterfaces())) {
            System.out.println(i.getName());
            for (InetAddress a : Collections.list(i.getInetAddresses())) {
                System.out.println(i.getName() + " " + a.getHostAddress());
            }
        }
    }
}
